"""Packing lays documents side by side in a stream of tokens, and cuts the stream into rows.

It happens in two steps, and only the first one knows the method: `concatenate`, `best_fit` and `best_fit_whole` lay
the documents of a block out as a stretch of the stratum's stream, and `to_rows` cuts the streams
of all blocks, one after the other, every `length` tokens. Best-fit stretches are a multiple of
`length` long, so that the cuts fall between the pieces that best-fit has placed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# A span says which document fills a stream (or a row) from `start` to the next span's start (or
# the end): its tokens from `offset` on. `document` is an index into the store's documents table,
# and `score` is the document's score.
SPAN = np.dtype([("document", "<u4"), ("start", "<u4"), ("offset", "<u4"), ("score", "<f4")])
# A chat or a pair may be several sequences, which do not see each other: `part` counts them from 0.
PART_SPAN = np.dtype([*SPAN.descr, ("part", "<u4")])
PADDING = 2**32 - 1  # in place of a document's number


@dataclasses.dataclass(frozen=True)
class Piece:
    """One sequence of tokens that fills a segment of a row.

    Attributes:
      ids: its tokens.
      mask: 1 for the tokens that are to be learnt, else 0; as long as `ids`.
      part: the number of the sequence within its document, from 0.
      side: 1 for the chosen answer of a pair, -1 for the rejected one, else 0.
    """

    ids: Sequence[int]
    mask: Sequence[int]
    part: int = 0
    side: int = 0


@dataclasses.dataclass(frozen=True)
class Unit:
    """The pieces of one document that must share a row: a single piece, or the two sides of a pair."""

    document: int
    score: float
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stretch of tokens that documents fill without a gap (padding has spans too).

    Attributes:
      columns: arrays [n] of one length, "tokens" among them; little-endian.
      spans: of dtype SPAN or PART_SPAN, by increasing start; the first one starts at 0.
    """

    columns: Mapping[str, np.ndarray]
    spans: np.ndarray

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def padding(self) -> int:
        """The number of padding tokens."""
        sizes = np.diff(self.spans["start"], append=len(self))
        return int(sizes[self.spans["document"] == PADDING].sum())

    def with_columns(self, columns: Iterable[Sequence[str]]) -> Stream:
        """Returns the stream with just these columns of (name, dtype); a column that it does not have is 0."""
        return Stream({name: self.columns.get(name, np.zeros(len(self), dtype)) for name, dtype in columns}, self.spans)

    def cut(self, start: int, stop: int) -> Stream:
        """Returns the part [start, stop) of the stream, in which a document that begins earlier has a span too."""
        first = np.searchsorted(self.spans["start"], start, "right") - 1
        last = np.searchsorted(self.spans["start"], stop, "left")
        spans = self.spans[first:last].copy()
        spans["offset"][:1] += (start - spans["start"][:1]).astype("<u4")
        spans["start"][:1] = start
        spans["start"] -= start
        return Stream({name: column[start:stop] for name, column in self.columns.items()}, spans)


def concatenate(columns: Mapping[str, np.ndarray], lengths: np.ndarray, scores: Sequence[float]) -> Stream:
    """Lays the documents out one after the other, as they are.

    Args:
      columns: arrays [n] with the documents' tokens one after the other.
      lengths: int64 [documents], each at least 1; they add up to n.
      scores: the score of each document.
    """
    spans = np.zeros(len(lengths), SPAN)
    spans["document"] = np.arange(len(lengths))
    spans["start"] = np.cumsum(lengths) - lengths
    spans["score"] = scores
    return Stream(columns, spans)


def best_fit(
    columns: Mapping[str, np.ndarray], lengths: np.ndarray, scores: Sequence[float], length: int, padding: int
) -> Stream:
    """Packs the documents into as few rows as best-fit decreasing finds, each piece of a document whole in its row.

    A document of more than `length` tokens is first split into full rows and a remainder, so that no
    document is cut more often than it must be (Ding et al. 2024, "Fewer Truncations Improve Language
    Modeling", arXiv 2404.10830, section 3). Rows are in the order of their first documents, and
    within a row documents keep their order; what stays free at a row's end holds the token `padding`
    and 0 in the other columns.

    Args:
      columns: arrays [n] with the documents' tokens one after the other.
      lengths: int64 [documents], each at least 1; they add up to n.
      scores: the score of each document.
      length: tokens per row.
      padding: the token that fills the rest of a row.
    """
    sizes, begins = lengths.tolist(), (np.cumsum(lengths) - lengths).tolist()
    rows = [
        [(document, offset, length)]
        for document in np.flatnonzero(lengths >= length).tolist()
        for offset in range(0, sizes[document] // length * length, length)
    ]
    rests = [(document, size // length * length, size % length) for document, size in enumerate(sizes) if size % length]
    for indices in fewest_rows([size for _, _, size in rests], length):
        rows.append([rests[index] for index in sorted(indices)])
    rows.sort()

    packed = {name: np.zeros(len(rows) * length, column.dtype) for name, column in columns.items()}
    packed["tokens"][:] = padding
    spans: list[tuple[int, int, int, float]] = []
    for number, row in enumerate(rows):
        start = number * length
        for document, offset, size in row:
            begin = begins[document] + offset
            for name, column in columns.items():
                packed[name][start : start + size] = column[begin : begin + size]
            spans.append((document, start, offset, scores[document]))
            start += size
        if start < (number + 1) * length:
            spans.append((PADDING, start, 0, 0.0))
    return Stream(packed, np.array(spans, SPAN))


def best_fit_whole(units: Sequence[Unit], length: int, padding: int, dtype: np.dtype, *, with_sides: bool) -> Stream:
    """Packs the units into as few rows as best-fit decreasing finds, each of them whole in one row.

    Rows are in the order of their first units, and within a row units keep their order; what stays free at a row's
    end holds the token `padding` and 0 in the other columns.

    Args:
      units: the units, each of 1 to `length` tokens.
      length: tokens per row.
      padding: the token that fills the rest of a row.
      dtype: the dtype of the tokens.
      with_sides: whether the stream has a column "side" beside "tokens" and "mask".
    """
    rows = sorted(sorted(indices) for indices in fewest_rows([len(unit) for unit in units], length))
    size = len(rows) * length
    columns = {"tokens": np.full(size, padding, dtype), "mask": np.zeros(size, "|u1")}
    if with_sides:
        columns["side"] = np.zeros(size, "|i1")
    spans: list[tuple[int, int, int, float, int]] = []
    for number, row in enumerate(rows):
        start = number * length
        for unit in (units[index] for index in row):
            for piece in unit.pieces:
                end = start + len(piece.ids)
                columns["tokens"][start:end], columns["mask"][start:end] = piece.ids, piece.mask
                if with_sides:
                    columns["side"][start:end] = piece.side
                spans.append((unit.document, start, 0, unit.score, piece.part))
                start = end
        if start < (number + 1) * length:
            spans.append((PADDING, start, 0, 0.0, 0))
    return Stream(columns, np.array(spans, PART_SPAN))


def fewest_rows(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs items into bins by best-fit decreasing: the largest item first, each into the fullest bin that has room.

    Args:
      sizes: the sizes of the items, each in [1, capacity].
      capacity: the size of a bin.

    Returns:
      For each bin, the indices into `sizes` of its items. There are at most 11/9 of the best number of bins and one
      more.
    """
    bins: list[list[int]] = []
    having: list[list[int]] = [[] for _ in range(capacity)]  # the bins by their free space
    spaces = 0  # bit s is set if a bin has s free: an integer finds the least sufficient space in a few operations
    for item in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        size = sizes[item]
        enough = spaces >> size
        if enough:
            space = size + (enough & -enough).bit_length() - 1
            chosen = having[space].pop()
            if not having[space]:
                spaces ^= 1 << space
        else:
            space, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(item)
        if space > size:
            having[space - size].append(chosen)
            spaces |= 1 << (space - size)
    return bins


def join(streams: Sequence[Stream], documents_before: Sequence[int]) -> Stream:
    """Joins streams one after the other; `documents_before` is added to the document numbers of each."""
    names = list(streams[0].columns)
    columns = {name: np.concatenate([stream.columns[name] for stream in streams]) for name in names}
    parts, before = [], 0
    for stream, documents in zip(streams, documents_before, strict=True):
        spans = stream.spans.copy()
        spans["document"][spans["document"] != PADDING] += np.uint32(documents)
        spans["start"] += np.uint32(before)
        before += len(stream)
        parts.append(spans)
    return Stream(columns, np.concatenate(parts))


def to_rows(stream: Stream, length: int) -> list[bytes]:
    """Returns the records of the stream's full rows: each row's columns, one after the other, and then its spans."""
    rows = len(stream) // length
    given = stream.spans["start"].astype(np.int64)
    starts = np.union1d(given, np.arange(rows, dtype=np.int64) * length)
    starts = starts[: np.searchsorted(starts, rows * length)]
    source = np.searchsorted(given, starts, "right") - 1
    spans = stream.spans[source]  # a copy
    spans["offset"] += (starts - given[source]).astype("<u4")
    spans["start"] = starts % length
    ends = (np.cumsum(np.bincount(starts // length, minlength=rows)) * spans.dtype.itemsize).tolist()
    data = spans.tobytes()
    begins = [0, *ends]
    columns = [(column.tobytes(), column.itemsize * length) for column in stream.columns.values()]
    return [
        b"".join([*(column[row * size : (row + 1) * size] for column, size in columns), data[begins[row] : ends[row]]])
        for row in range(rows)
    ]
