"""Packs what has to be scored into a few shapes of rows, in which each shared beginning stands only once.

The sequences of a row are sorted, and of each sequence only that part is written that it does not share with the one
before, so the row is a forest of prefix trees in depth-first order. A token has the position that it has in its own
sequence (`positions`) and is seen from its place in the row up to the end of its subtree (`until`). So every sequence
sees exactly itself, and the model computes what it would compute for each sequence alone.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

Ids: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """How probable is `target` after `prefix`? Neither is empty."""

    prefix: Ids
    target: Ids

    @functools.cached_property
    def inputs(self) -> Ids:
        """The tokens that the model reads; the last token is not read, because nothing follows it."""
        return self.prefix + self.target[:-1]


@dataclasses.dataclass(frozen=True)
class Packed:
    """Packed rows, int32 [rows, length], and the flat places where the tokens of each question are predicted."""

    tokens: np.ndarray
    positions: np.ndarray
    until: np.ndarray
    questions: tuple[Question, ...]
    reads: np.ndarray  # int32, the places of all questions one after the other
    targets: np.ndarray  # int32, the tokens predicted there


def batches(
    questions: Iterable[Question],
    lengths: Sequence[int],
    heights: dict[int, tuple[int, ...]],
    dearness: Callable[[int], float] = lambda length: 1.0,
    *,
    alone: bool = False,
) -> Iterator[Packed]:
    """Yields all distinct questions in batches of a few shapes.

    Questions that fit the shortest rows may go into rows up to four times as long, in which more is shared; the
    cheapest of these lengths is taken for all of them. Any other question goes into rows of the shortest length that
    holds it. A batch has the largest number of rows that can be filled.

    Args:
      questions: the questions in any order; equal ones are answered once.
      lengths: row lengths, ascending; every question fits the last one.
      heights: for each row length the allowed numbers of rows, ascending.
      dearness: what a token costs in a row of some length, in any unit.
      alone: whether only questions that read the same tokens share a row.
    """
    by_length: dict[int, list[Question]] = {length: [] for length in lengths}
    for question in sorted(dict.fromkeys(questions), key=_order):
        by_length[next(length for length in lengths if len(question.inputs) <= length)].append(question)
    for shortest, group in by_length.items():
        if not group:
            continue
        length = shortest
        if not alone:
            tried = lengths[:3] if shortest == lengths[0] else [shortest]
            found = [(dearness(size) * sum(s for _, s in gather(group, size)), size) for size in tried]
            length = min(found)[1]
        rows = _rows(group, length, alone=alone)
        while rows:
            height = max((size for size in heights[length] if size <= len(rows)), default=heights[length][0])
            yield _lay_out(rows[:height], height, length)
            rows = rows[height:]


def one_batch(questions: Iterable[Question], length: int, heights: Sequence[int], *, alone: bool = False) -> Packed:
    """Returns a few questions as one batch; one of `heights` must be enough for their rows."""
    rows = _rows(sorted(questions, key=_order), length, alone=alone)
    return _lay_out(rows, next(size for size in heights if size >= len(rows)), length)


def _rows(group: Sequence[Question], length: int, *, alone: bool) -> list[list[Question]]:
    """Returns sorted questions in rows of `length`; they are sorted in each row, too."""
    if alone:
        return [list(same) for _, same in itertools.groupby(group, key=lambda question: question.inputs)]
    families = gather(group, length)
    packed = best_fit([size for _, size in families], length)
    return [sorted((q for f in row for q in families[f][0]), key=_order) for row in packed]


def gather(questions: Iterable[Question], length: int) -> list[tuple[list[Question], int]]:
    """Returns families of sorted questions that fit a row of `length`, each with its number of tokens.

    A question joins the family of the one before it when they share at least a quarter of its tokens.
    """
    families: list[tuple[list[Question], int]] = []
    last: Ids = ()
    for question in questions:
        inputs = question.inputs
        shared = _shared(last, inputs)
        if families and 4 * shared >= len(inputs) and families[-1][1] + len(inputs) - shared <= length:
            members, size = families[-1]
            members.append(question)
            families[-1] = members, size + len(inputs) - shared
        else:
            families.append(([question], len(inputs)))
        last = inputs
    return families


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Returns which items go into which row of `length`: the largest first, each into the fullest row that has room."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        place = bisect.bisect_left(room, (sizes[item], -1))
        free, row = room.pop(place) if place < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        assert sizes[item] <= free
        rows[row].append(item)
        bisect.insort(room, (free - sizes[item], row))
    return rows


def _order(question: Question) -> tuple[Ids, int]:
    return question.inputs, question.target[-1]


def _shared(a: Ids, b: Ids) -> int:
    """Returns the number of tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _lay_out(rows: Sequence[Sequence[Question]], height: int, length: int) -> Packed:
    """Lays out `rows` of sorted questions as the first of `height` rows; a token of padding sees only itself."""
    tokens, positions = np.zeros((2, height, length), np.int32)
    until = np.tile(np.arange(1, length + 1, dtype=np.int32), (height, 1))
    reads = []
    for number, questions in enumerate(rows):
        end, path = 0, np.zeros(0, np.int64)  # path: the places of the last sequence
        last: Ids = ()
        for question in questions:
            inputs = question.inputs
            shared = _shared(last, inputs)
            until[number, path[shared:]] = end
            fresh = np.arange(end, end + len(inputs) - shared)
            tokens[number, fresh], positions[number, fresh] = inputs[shared:], np.arange(shared, len(inputs))
            path, last, end = np.concatenate([path[:shared], fresh]), inputs, end + len(fresh)
            reads.append(number * length + path[len(question.prefix) - 1 :])
        until[number, path] = end
    asked = tuple(question for questions in rows for question in questions)
    targets = np.concatenate([question.target for question in asked])
    return Packed(tokens, positions, until, asked, np.concatenate(reads).astype(np.int32), targets.astype(np.int32))
