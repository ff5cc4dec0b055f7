"""Concat-and-split: documents become full rows, and every row knows what fills it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# A span says which document fills a row from `start` to the next span's start (or the row's end).
# `document` is an index into the store's documents table. Spans carry the score themselves, so that
# parts of one document (sentences) can have scores of their own.
SPAN = np.dtype([("document", "<u4"), ("start", "<u4"), ("score", "<f4")])


class Packer:
    """Cuts the concatenation of token sequences into rows of exactly `length` tokens.

    Tokens keep their order and none is lost, repeated or padded; what does not fill the last
    row is `leftover`.
    """

    def __init__(self, length: int, token_dtype: np.dtype):
        self._length = length
        self._row = np.zeros(length, token_dtype)
        self._spans: list[tuple[int, int, float]] = []
        self._filled = 0

    @property
    def leftover(self) -> int:
        """Tokens that wait for a full row."""
        return self._filled

    def add(
        self, document: int, tokens: Sequence[int] | np.ndarray, score: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Appends a document and yields the rows that it completes.

        Each row is (tokens [length], spans [n] of dtype SPAN); both are fresh arrays. The
        iterator must be exhausted before the next call.
        """
        tokens = np.asarray(tokens, self._row.dtype)
        taken = 0
        while taken < len(tokens):
            count = min(self._length - self._filled, len(tokens) - taken)
            self._row[self._filled : self._filled + count] = tokens[taken : taken + count]
            self._spans.append((document, self._filled, score))
            self._filled += count
            taken += count
            if self._filled == self._length:
                yield self._row.copy(), np.array(self._spans, SPAN)
                self._spans, self._filled = [], 0
