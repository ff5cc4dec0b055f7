"""Packing what has to be scored into a few shapes of rows, each shared beginning once.

The sequences of a row are sorted, and of each only what its predecessor does not begin with is written: the row is a
forest of prefix trees in depth-first order. A token stands at its place in its own sequence (`positions`) and is seen
from its place up to the end of its subtree (`until`), so that every sequence sees exactly itself, and the model
computes what it would compute for each sequence alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

Ids: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """How probable is `target` after `prefix`? Neither is empty."""

    prefix: Ids
    target: Ids

    @property
    def inputs(self) -> Ids:
        """What the model reads: nothing follows the last token."""
        return self.prefix + self.target[:-1]


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows, int32 [rows, length], and the flat places where the tokens of each question are predicted."""

    tokens: np.ndarray
    positions: np.ndarray
    until: np.ndarray
    questions: tuple[Question, ...]
    reads: np.ndarray  # int32, the places of all questions one after the other
    targets: np.ndarray  # int32, the tokens predicted there


class _Row:
    """One row that is being filled."""

    def __init__(self, length: int):
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.until = list(range(1, length + 1))  # padding sees itself alone
        self.path: list[int] = []  # places of the last sequence
        self.last: Ids = ()
        self.length = length

    def size_of(self, sequences: Sequence[Ids]) -> int:
        """Tokens that these sequences would add."""
        pairs = itertools.pairwise((self.last, *sequences))
        return sum(len(sequence) - _shared(before, sequence) for before, sequence in pairs)

    def add(self, sequence: Ids) -> list[int]:
        """Appends a sequence; returns the places of all its tokens."""
        shared, end = _shared(self.last, sequence), len(self.tokens)
        for place in self.path[shared:]:
            self.until[place] = end
        fresh = range(end, end + len(sequence) - shared)
        assert fresh.stop <= self.length
        self.tokens += sequence[shared:]
        self.positions += range(shared, len(sequence))
        self.path, self.last = [*self.path[:shared], *fresh], sequence
        return self.path

    def close(self) -> None:
        """The last sequence is seen up to the end of what was written."""
        for place in self.path:
            self.until[place] = len(self.tokens)


def batches(
    questions: Iterable[Question], lengths: Sequence[int], heights: dict[int, tuple[int, ...]]
) -> Iterator[Packed]:
    """All distinct questions in batches of a few shapes.

    A row is of the shortest length that holds its sequences; a batch has the fewest rows that suffice, and the
    questions about one prefix stay together where they fit a row.

    Args:
      questions: in any order; equal ones are answered once.
      lengths: row lengths, ascending; every question fits the last one.
      heights: for each row length the allowed numbers of rows, ascending.
    """
    by_length: dict[int, list[Question]] = {length: [] for length in lengths}
    for question in dict.fromkeys(questions):
        by_length[next(length for length in lengths if len(question.inputs) <= length)].append(question)
    for length, group in by_length.items():
        rows: list[_Row] = []
        places: list[list[tuple[Question, list[int]]]] = []
        for _, same in itertools.groupby(sorted(group, key=_order), key=lambda question: question.prefix):
            related = list(same)
            if not rows or len(rows[-1].tokens) + rows[-1].size_of([q.inputs for q in related]) > length:
                rows.append(_Row(length))
                places.append([])
            for question in related:
                if len(rows[-1].tokens) + rows[-1].size_of([question.inputs]) > length:
                    rows.append(_Row(length))
                    places.append([])
                path = rows[-1].add(question.inputs)
                places[-1].append((question, path[len(question.prefix) - 1 :]))
        while rows:
            height = next((size for size in heights[length] if size >= len(rows)), heights[length][-1])
            yield _lay_out(rows[:height], places[:height], height)
            rows, places = rows[height:], places[height:]


def _order(question: Question) -> tuple[Ids, Ids]:
    return question.prefix, question.target


def _shared(a: Ids, b: Ids) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _lay_out(rows: list[_Row], places: list[list[tuple[Question, list[int]]]], height: int) -> Packed:
    length = rows[0].length
    tokens, positions = np.zeros((2, height, length), np.int32)
    until = np.tile(np.arange(1, length + 1, dtype=np.int32), (height, 1))
    for number, row in enumerate(rows):
        row.close()
        tokens[number, : len(row.tokens)] = row.tokens
        positions[number, : len(row.tokens)] = row.positions
        until[number] = row.until
    answered = [(q, np.asarray(path) + number * length) for number, row in enumerate(places) for q, path in row]
    return Packed(
        tokens,
        positions,
        until,
        tuple(question for question, _ in answered),
        np.concatenate([path for _, path in answered]).astype(np.int32),
        np.concatenate([question.target for question, _ in answered]).astype(np.int32),
    )
