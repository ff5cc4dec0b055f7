"""This module spreads the scored spans of a text's characters over its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignpre_jax.foundation import UserError
from alignpre_jax.rows.tokenizer import Tokenizer


def token_scores(tokenizer: Tokenizer, document: Mapping[str, Any], ids: Sequence[int]) -> tuple[np.ndarray, int]:
    """Returns (the score of each token, the number of tokens that lie in a span).

    A token belongs to the span that holds its first byte, so every token is in one span or in none, also where a
    character is several tokens. Tokens outside of all spans have the score 0.

    Args:
      tokenizer: the tokenizer that made the tokens.
      document: {"id", "text", "spans"}, each span (start, end, score, label) in characters of the text.
      ids: the text's tokens.

    Raises:
      UserError: spans overlap, or reach beyond the text.
    """
    scores, inside = np.zeros(len(ids), "<f4"), 0
    starts = token_starts(tokenizer, document["text"], ids)
    last = 0
    for start, end, score, *_ in sorted(document["spans"]):
        if not last <= start <= end <= len(document["text"]):
            what = f"the span [{start}, {end}) overlaps another one, or reaches beyond the text"
            raise UserError(what, where=f"spans of {document['id']}", fix="give spans that follow each other")
        held = slice(*np.searchsorted(starts, [start, end]).tolist())
        scores[held], last = score, end
        inside += held.stop - held.start
    return scores, inside


def token_starts(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> np.ndarray:
    """Returns the index of the character that holds the first byte of each token: int64 [tokens], never decreasing."""
    pieces = [tokenizer.token_bytes(token) for token in ids]
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    if b"".join(pieces) != text.encode():  # the tokenizer changes what it reads, so only it knows where tokens begin
        starts = np.maximum.accumulate(np.array(tokenizer.starts(text), np.int64))
        assert len(starts) == len(ids), (len(starts), len(ids))
        return starts
    character_of_byte = np.repeat(np.arange(len(text)), [len(character.encode()) for character in text])
    return np.append(character_of_byte, len(text))[np.cumsum(sizes) - sizes]  # tokens without bytes may stand last
