"""A row store holds packed rows on disk, with random access.

A store is a folder, which can be read without this package:

    header.json                         `RowHeader` as JSON
    rows-00000.array_record ...         `shard_rows` rows each (the last shard has the rest)
    documents-00000.array_record ...    `shard_documents` documents each, a JSON object per document:
                                        {"id", "source", "score", "labels", "bytes", "tokens"}

The files are ArrayRecord. Record i of shard s is row s * shard_rows + i (document s *
shard_documents + i). A row's record holds the header's `columns` one after the other, each an array
of `length` items of the dtype that the header names, and then, to the end of the record, the row's
spans, which have the header's `span_fields`. A span says that the tokens `offset`, `offset` + 1, ...
of document number `document` fill the row from position `start` to the next span's start; the first
span starts at 0. Document number 2**32 - 1 is padding, which only ends a row; its tokens are
`eot_id` and mean nothing. What the columns are depends on the header's `kind`:

    text       tokens
    chat       tokens, mask (1 where the token is to be learnt: the assistant's; 0 elsewhere)
    pairs      tokens, mask, side (1 where the token belongs to a chosen answer or the prompt before it,
               -1 where it belongs to a rejected one; 0 is padding). A pair is two spans, the chosen first
    prompts    tokens, mask (0 everywhere)

and any kind may have a last column `scores` (those of the documents' scored spans; 0 outside of them).
Chats, pairs and prompts have one more span field, `part`, because one of their documents may be several
sequences: the sides of a pair, or a chat's turns, each with the conversation before it. A sequence
does not see any other, so a new segment begins where the document or the part changes.

Stores of text of versions 1 and 2 can still be read. Version 1 had no padding, no span field `offset`,
one file documents.array_record and none of the header's fields that have defaults here. What a later
version adds comes as further kinds, columns or span fields. A reader refuses columns that it does not
know, because training on a row without its loss mask would be silently wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module
from etils import epath

from alignpre_jax.foundation import PathLike, UserError, build, disk_errors, parse_json, read_json
from alignpre_jax.rows import gcs
from alignpre_jax.rows.packing import PADDING, PART_SPAN, SPAN

VERSION = 3
HEADER = "header.json"
_IN_MEMORY_BYTES = 256_000_000  # bytes of columns: smaller stores are kept in memory, read a shard at a time
_HERE = "readahead_buffer_size:0,max_parallelism:0"
_IN_A_BUCKET = "readahead_buffer_size:0"  # one request for each row, several at a time
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("tokens",),
    "chat": ("tokens", "mask"),
    "pairs": ("tokens", "mask", "side"),
    "prompts": ("tokens", "mask"),
}
SPANS = {"text": SPAN, "chat": PART_SPAN, "pairs": PART_SPAN, "prompts": PART_SPAN}
_DTYPES = {"mask": "|u1", "side": "|i1", "scores": "<f4"}


@dataclasses.dataclass(frozen=True)
class RowHeader:
    """The header says what a row store holds. Each document's end-of-text token counts as one of its tokens."""

    version: int
    stratum: str
    length: int  # tokens per row
    rows: int
    tokens: int  # rows * length, padding included
    documents: int
    dropped_tokens: int  # in no row: the end of the last document, or what did not fit of chats, pairs and prompts
    tokenizer_digest: str
    vocab_size: int
    eot_id: int
    inputs_digest: str  # of the documents and everything else that determines the bytes
    shard_rows: int
    columns: tuple[tuple[str, ...], ...]  # (name, dtype)
    span_fields: tuple[tuple[str, ...], ...]  # (name, dtype)
    kind: str = "text"
    packing: str = "concat"
    shard_documents: int = 0  # 0: all in one file
    padding_tokens: int = 0
    left_out_documents: int = 0  # chats without an answer that has room in a row; pairs and prompts that have no room
    learnt_tokens: int = 0
    learnt_ends: int = 0  # learnt tokens that end a turn: as many as there are turns that are not truncated
    turns: int = 0  # turns of the assistant in the documents; a pair has two
    truncated: int = 0  # turns whose end is in no row

    @property
    def real_tokens(self) -> int:
        """The tokens that belong to documents: all tokens but the padding."""
        return self.tokens - self.padding_tokens


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch of rows; each column is [n, length], or None if the store does not have it.

    Segments number the sequences of a row 1, 2, ... from left to right; 0 is padding. A text or chat is one sequence
    however many scored spans it has, and a pair is two.
    """

    tokens: np.ndarray  # int32
    segments: np.ndarray  # int32
    mask: np.ndarray | None = None  # bool: the token is to be learnt; None: every token that is not padding
    scores: np.ndarray | None = None  # float32: of the scored span that the token is in, 0 outside of spans
    side: np.ndarray | None = None  # int8: 1 chosen, -1 rejected, 0 padding


@dataclasses.dataclass(frozen=True)
class Span:
    """The part [start, end) of a row that one document fills, with its tokens from `offset` on (-1: not known)."""

    document_id: str
    start: int
    end: int
    score: float
    offset: int = -1


class RowStore:
    """A row store gives random access to the rows of one stratum.

    The object holds a path and what is needed to read from it. Threads may share it, and a copy that is sent to
    another process, or inherited by a fork, opens the files anew.
    """

    def __init__(self, path: PathLike):
        self.path = place_of(path)
        raw = _raw_header(self.path)
        version = raw.get("version") if isinstance(raw, Mapping) else None
        is_old_text = version in (1, 2) and raw.get("kind", "text") == "text"
        if version != VERSION and not is_old_text:
            raise UserError(
                f"a row store of version {version!r}; this program reads version {VERSION}, and of text also 1 and 2",
                where=str(self.path / HEADER),
                fix="build the rows again with this program",
            )
        if is_old_text:
            raw = {name: value for name, value in raw.items() if name != "masked_tokens"}
            raw["learnt_tokens"] = raw["tokens"] - raw.get("padding_tokens", 0)
        self.header = build(RowHeader, raw, where=str(self.path / HEADER))
        _check_layout(self.header, str(self.path / HEADER))
        self._dtypes = {name: np.dtype(dtype) for name, dtype in self.header.columns}
        self._span_dtype = np.dtype([(name, dtype) for name, dtype in self.header.span_fields])
        self._row_bytes = self.header.length * sum(dtype.itemsize for dtype in self._dtypes.values())
        self._open()

    def __len__(self) -> int:
        return self.header.rows

    def __repr__(self) -> str:
        return f"RowStore({str(self.path)!r}, rows={len(self)}, length={self.header.length})"

    def __reduce__(self):
        return open_rows, (str(self.path),)

    def read(self, indices: np.ndarray) -> Rows:
        """Reads the rows at `indices` (int64 [n], any order, repeats allowed).

        Raises:
          IndexError: an index is outside [0, len).
          UserError: a shard is damaged or missing.
        """
        columns, spans, counts = self._parse(indices)
        rows = np.repeat(np.arange(len(counts)), counts)
        begins = _begins(spans, rows)
        segments = np.zeros((len(counts), self.header.length), np.int32)
        segments[rows[begins], spans["start"][begins]] = 1
        np.cumsum(segments, axis=1, out=segments)
        if self.header.padding_tokens:
            padding = spans["document"] == PADDING
            segments[rows[padding]] *= np.arange(self.header.length) < spans["start"][padding, None]
        return Rows(
            tokens=columns["tokens"].astype(np.int32),
            segments=segments,
            mask=columns["mask"] != 0 if "mask" in columns else None,
            scores=columns["scores"].astype(np.float32) if "scores" in columns else None,
            side=columns["side"].astype(np.int8) if "side" in columns else None,
        )

    def spans(self, index: int) -> list[Span]:
        """Returns what fills row `index` from left to right, one span for each segment; padding is not listed."""
        _, spans, counts = self._parse(np.asarray([index], np.int64))
        spans = spans[_begins(spans, np.repeat(np.arange(len(counts)), counts))]
        ends = np.append(spans["start"][1:], self.header.length)
        offsets = spans["offset"].tolist() if "offset" in (self._span_dtype.names or ()) else [-1] * len(spans)
        return [
            Span(self.document(int(span["document"]))["id"], int(span["start"]), int(end), float(span["score"]), offset)
            for span, end, offset in zip(spans, ends, offsets, strict=True)
            if span["document"] != PADDING
        ]

    def document(self, number: int) -> dict[str, Any]:
        """Returns the entry of one document in the documents table."""
        return next(self._documents([number]))

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yields the entries of the documents table, in the order in which the documents were given to the build.

        Rows that are packed "concat" hold the documents in this order; best-fit changes it within a block.
        """
        for start in range(0, self.header.documents, 4096):
            numbers = list(range(start, min(start + 4096, self.header.documents)))
            yield from self._documents(numbers)

    def _documents(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        size = self.header.shard_documents
        if self.header.version == 1:
            yield from map(json.loads, self._read("documents.array_record", self.header.documents, numbers))
            return
        for shard, group in itertools.groupby(numbers, lambda number: number // size):
            held = min(size, self.header.documents - shard * size)
            within = [number - shard * size for number in group]
            yield from map(json.loads, self._read(documents_name(shard), held, within))

    def _parse(self, indices: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
        """Returns the columns [n, length] as stored, the spans of all rows, and how many spans each row has."""
        records = self._records(np.asarray(indices, np.int64))
        columns, begin = {}, 0
        for name, dtype in self._dtypes.items():
            end = begin + self.header.length * dtype.itemsize
            data = b"".join([record[begin:end] for record in records])
            columns[name] = np.frombuffer(data, dtype).reshape(len(records), self.header.length)
            begin = end
        spans = np.frombuffer(b"".join([record[begin:] for record in records]), self._span_dtype)
        counts = [(len(record) - begin) // self._span_dtype.itemsize for record in records]
        return columns, spans, counts

    def _open(self) -> None:
        self._process = os.getpid()
        self._readers: dict[str, Any] = {}
        self._in_memory: dict[int, list[bytes]] = {}
        is_here = not gcs.is_gcs(self.path)  # from a bucket, only the rows that are asked for are fetched
        self._is_small = is_here and self.header.rows * self._row_bytes <= _IN_MEMORY_BYTES
        self._options = _HERE if is_here else _IN_A_BUCKET

    def _records(self, indices: np.ndarray) -> list[bytes]:
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows {indices.min()}..{indices.max()} of a store with {len(self)}")
        shards, within = np.divmod(indices, self.header.shard_rows)
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shards).tolist():
            (places,) = np.nonzero(shards == shard)
            for place, record in zip(places, self._read_shard(shard, within[places].tolist()), strict=True):
                records[place] = record
        return records

    def _read_shard(self, shard: int, indices: list[int]) -> list[bytes]:
        held = min(self.header.shard_rows, len(self) - shard * self.header.shard_rows)
        if not self._is_small:
            return self._read(shard_name(shard), held, indices)
        if shard not in self._in_memory:
            self._in_memory[shard] = self._read(shard_name(shard), held, list(range(held)))
        records = self._in_memory[shard]
        return [records[index] for index in indices]

    def _read(self, name: str, held: int, indices: Sequence[int]) -> list[bytes]:
        if self._process != os.getpid():
            self._open()
        try:
            reader = self._readers.get(name)
            if reader is None:
                reader = array_record_module.ArrayRecordReader(str(self.path / name), self._options)
                if reader.num_records() != held:  # the library reports a missing file as an empty one
                    raise RuntimeError(f"{reader.num_records()} of {held} records are readable")
                self._readers[name] = reader
            return reader.read(indices)
        except RuntimeError as error:
            fix = "delete the store's folder and build the rows again"
            if gcs.is_gcs(self.path):
                fix = "if the account may read the bucket: copy the store there again from the study's data/rows"
            raise UserError(f"the row store is damaged: {error}", where=str(self.path / name), fix=fix) from None


def open_rows(path: PathLike) -> RowStore:
    """Opens the row store in folder `path`, local or gs://.

    Raises:
      UserError: there is no row store, it is of another version, or the bucket does not answer.
    """
    return RowStore(path)


def write_records(path: Path, records: Iterable[bytes], options: str) -> None:
    """Writes an ArrayRecord file, whole or not at all, into a folder that must be there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path), _library_errors():
        try:
            writer = array_record_module.ArrayRecordWriter(str(part), options)
            try:
                for record in records:
                    writer.write(record)
            finally:
                writer.close()
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def shard_name(shard: int) -> str:
    """Returns the file name of a shard of rows."""
    return f"rows-{shard:05d}.array_record"


def documents_name(shard: int) -> str:
    """Returns the file name of a shard of the documents table."""
    return f"documents-{shard:05d}.array_record"


def place_of(path: PathLike) -> Path | epath.Path:
    """Returns `path` as a folder, local or gs://; other places give no random access to ArrayRecord files."""
    if gcs.is_gcs(path):
        return epath.Path(path)
    return local_folder(path)


def local_folder(path: PathLike) -> Path:
    """Returns `path` as a local folder, which is where stores are built; a URL raises `UserError`."""
    if "://" in os.fspath(path):
        fix = "build them there; `publish_rows` copies a store to a bucket"
        raise UserError("rows are built on local or mounted disks", where=os.fspath(path), fix=fix)
    return Path(path)


def _raw_header(path: Path | epath.Path) -> Any:
    place = path / HEADER
    if gcs.is_gcs(path):
        data = gcs.read_object(place)
        if data is not None:
            return parse_json(data, where=str(place))
    elif place.exists():
        return read_json(place)
    raise UserError("there is no row store here", where=str(path), fix="build the rows first")


def columns_of(kind: str, vocab_size: int, has_scores: bool) -> dict[str, str]:
    """Returns the dtypes of the columns of a store of this kind, by name, in the order in which a record has them."""
    tokens = "<u2" if vocab_size <= 1 << 16 else "<u4"
    names = (*COLUMNS[kind], *(["scores"] if has_scores else []))
    return {name: _DTYPES.get(name, tokens) for name in names}


def _check_layout(header: RowHeader, where: str) -> None:
    """Refuses kinds, columns and span fields that this program does not know."""
    columns, fields = (tuple(name for name, *_ in part) for part in (header.columns, header.span_fields))
    expected = COLUMNS.get(header.kind, ())
    known = tuple(name for name in SPANS.get(header.kind, SPAN).names or () if header.version > 1 or name != "offset")
    if columns not in (expected, (*expected, "scores")) or not expected or fields != known:
        raise UserError(
            f"rows of kind {header.kind!r} with columns {columns} and spans of {fields}; this program reads {expected} "
            f"and {known}",
            where=where,
            fix="read the store with the program that wrote it",
        )


def _begins(spans: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns which spans begin a segment: all but those that go on with the document (and part) of the span before.

    A document that lies in several spans of a row (version 2 had one for each scored span) is still one text.
    """
    begins = np.ones(len(spans), bool)
    names = spans.dtype.names or ()
    if "offset" not in names or len(spans) < 2:
        return begins
    before, after = spans[:-1], spans[1:]
    goes_on = (rows[1:] == rows[:-1]) & (after["document"] == before["document"]) & (after["document"] != PADDING)
    goes_on &= after["offset"] - before["offset"] == after["start"] - before["start"]
    if "part" in names:
        goes_on &= after["part"] == before["part"]
    begins[1:] = ~goes_on
    return begins


@contextlib.contextmanager
def _library_errors() -> Iterator[None]:
    """Turns ArrayRecord's errors, which tell the cause in words only, into the OSError that they were."""
    try:
        yield
    except RuntimeError as error:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        raise
