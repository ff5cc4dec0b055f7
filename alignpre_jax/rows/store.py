"""The row store: packed rows on disk, with random access.

A store is a folder. It can be read without this package:

    header.json                         `RowHeader` as JSON
    rows-00000.array_record ...         `shard_rows` rows each (the last shard has the rest)
    documents-00000.array_record ...    `shard_documents` documents each, a JSON object per document:
                                        {"id", "source", "score", "labels", "bytes", "tokens"}

The files are ArrayRecord. Record i of shard s is row s * shard_rows + i (document s *
shard_documents + i): the header's `columns` one after the other, each an array of `length`
items of the dtype that the header names, and then the row's spans to the end of the record,
each of the header's `span_fields`. A span is filled by the tokens `offset`, `offset` + 1, ... of
document number `document` from position `start` to the next span's start; the first one
starts at 0. Document number 2**32 - 1 is padding, which only ends a row; its tokens are
`eot_id` and mean nothing. What the columns are depends on the header's `kind`:

    text     tokens
    chat     tokens, mask (1 where the token is to be learnt: the assistant's; 0 elsewhere)
    pairs    tokens (the prompt and the chosen answer), rejected (the prompt and the rejected
             one). A row is one span, and three more span fields say how it is filled: the
             prompt is positions [0, prompt) of both columns, the answers to be compared are
             [prompt, chosen) of `tokens` and [prompt, rejected) of `rejected`; then padding

Version 1 had text rows without padding, no span field `offset`, one file documents.array_record
and none of the header's fields that have defaults here; it is still read. What a later version
adds comes as further kinds, columns or span fields. A reader refuses columns that it does not
know: training on a row without its loss mask would be silently wrong.
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
from alignpre_jax.rows.packing import PADDING, PAIR_SPAN, SPAN

VERSION = 2
HEADER = "header.json"
_IN_MEMORY_BYTES = 256_000_000  # of tokens: smaller stores are read whole, a shard at a time
_HERE = "readahead_buffer_size:0,max_parallelism:0"
_IN_A_BUCKET = "readahead_buffer_size:0"  # one request for each row, several at a time
COLUMNS: dict[str, tuple[str, ...]] = {"text": ("tokens",), "chat": ("tokens", "mask"), "pairs": ("tokens", "rejected")}
SPANS = {"text": SPAN, "chat": SPAN, "pairs": PAIR_SPAN}


@dataclasses.dataclass(frozen=True)
class RowHeader:
    """What a row store holds. Each document's end-of-text token counts as one of its tokens."""

    version: int
    stratum: str
    length: int  # tokens per row
    rows: int
    tokens: int  # rows * length, padding included; pair rows have twice as many
    documents: int
    dropped_tokens: int  # in no row: the end of the last document, or what chat and pair rows had no room for
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
    masked_tokens: int = 0  # those that are read and not learnt: prompts
    left_out_documents: int = 0  # chats and pairs of which nothing to learn has room in a row

    @property
    def real_tokens(self) -> int:
        """Tokens of documents."""
        return self.tokens - self.padding_tokens

    @property
    def loss_tokens(self) -> int:
        """Tokens of documents that are to be learnt."""
        return self.real_tokens - self.masked_tokens


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch of rows. Segments number a row's spans 1, 2, ... from left to right; 0 is padding."""

    tokens: np.ndarray  # int32 [n, length]
    segments: np.ndarray  # int32 [n, length]
    mask: np.ndarray | None = None  # bool [n, length]: the token is to be learnt; None: every token that is not padding


@dataclasses.dataclass(frozen=True)
class PairRows:
    """A batch of pair rows: the same prompts with two answers, each of which its mask marks."""

    chosen: Rows
    rejected: Rows
    prompt: np.ndarray  # int32 [n]: tokens of the prompt


@dataclasses.dataclass(frozen=True)
class Span:
    """The part [start, end) of a row that one document fills, with its tokens from `offset` on (-1: not known)."""

    document_id: str
    start: int
    end: int
    score: float
    offset: int = -1


class RowStore:
    """Random access to the rows of one stratum.

    It is a path and what is needed to read from it: threads may share it, and a copy sent to
    another process, or inherited by a fork, opens the files anew.
    """

    def __init__(self, path: PathLike):
        self.path = place_of(path)
        raw = _raw_header(self.path)
        version = raw.get("version") if isinstance(raw, Mapping) else None
        if version not in (1, VERSION):
            raise UserError(
                f"a row store of version {version!r}; this program reads version {VERSION}",
                where=str(self.path / HEADER),
                fix="build the rows again with this program",
            )
        self.header = build(RowHeader, raw, where=str(self.path / HEADER))
        known = (self.header.kind, *_layout(self.header.kind, version))
        found = (
            self.header.kind,
            *(tuple(f[0] for f in part) for part in (self.header.columns, self.header.span_fields)),
        )
        if found != known:
            raise UserError(
                f"rows with columns {found}; this program reads {known}",
                where=str(self.path / HEADER),
                fix="read the store with the program that wrote it",
            )
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
        """The rows at `indices` (int64 [n], any order, repeats allowed).

        Raises:
          IndexError: an index is outside [0, len).
          UserError: a shard is damaged or missing, or these are pair rows.
        """
        if self.header.kind == "pairs":
            fix = "give these rows to a preference objective"
            raise UserError("these rows are pairs of answers, not texts", where=str(self.path), fix=fix)
        columns, spans, counts = self._parse(indices)
        rows = np.repeat(np.arange(len(counts)), counts)
        segments = np.zeros((len(counts), self.header.length), np.int32)
        segments[rows, spans["start"]] = 1
        np.cumsum(segments, axis=1, out=segments)
        if self.header.padding_tokens:
            padding = spans["document"] == PADDING
            segments[rows[padding]] *= np.arange(self.header.length) < spans["start"][padding, None]
        mask = columns["mask"] != 0 if "mask" in columns else None
        return Rows(columns["tokens"].astype(np.int32), segments, mask)

    def read_pairs(self, indices: np.ndarray) -> PairRows:
        """The pair rows at `indices` (int64 [n], any order, repeats allowed).

        Raises:
          IndexError: an index is outside [0, len).
          UserError: a shard is damaged or missing, or these are not pair rows.
        """
        if self.header.kind != "pairs":
            fix = "build them with `build_pair_rows`"
            raise UserError(f"these rows are of kind {self.header.kind!r}, not pairs", where=str(self.path), fix=fix)
        columns, spans, _ = self._parse(indices)
        positions = np.arange(self.header.length)
        prompt = spans["prompt"][:, None]

        def answer(column: str, end: np.ndarray) -> Rows:
            inside = positions < end[:, None]
            return Rows(columns[column].astype(np.int32), inside.astype(np.int32), inside & (positions >= prompt))

        chosen, rejected = answer("tokens", spans["chosen"]), answer("rejected", spans["rejected"])
        return PairRows(chosen, rejected, spans["prompt"].astype(np.int32))

    def spans(self, index: int) -> list[Span]:
        """What fills row `index`, from left to right; of a pair row, the longer answer's end. Padding is not listed."""
        _, spans, _ = self._parse(np.asarray([index], np.int64))
        ends = np.append(spans["start"][1:], self.header.length)
        if self.header.kind == "pairs":
            ends = np.maximum(spans["chosen"], spans["rejected"])
        offsets = spans["offset"].tolist() if "offset" in (self._span_dtype.names or ()) else [-1] * len(spans)
        return [
            Span(self.document(int(span["document"]))["id"], int(span["start"]), int(end), float(span["score"]), offset)
            for span, end, offset in zip(spans, ends, offsets, strict=True)
            if span["document"] != PADDING
        ]

    def document(self, number: int) -> dict[str, Any]:
        """The entry of one document in the documents table."""
        return next(self._documents([number]))

    def documents(self) -> Iterator[dict[str, Any]]:
        """The documents table, in the order in which the documents fill the rows."""
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
        """Columns [n, length] as stored, the spans of all rows, and how many each row has."""
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
    """The file name of a shard of rows."""
    return f"rows-{shard:05d}.array_record"


def documents_name(shard: int) -> str:
    """The file name of a shard of the documents table."""
    return f"documents-{shard:05d}.array_record"


def place_of(path: PathLike) -> Path | epath.Path:
    """`path` as a folder, local or gs://; ArrayRecord files are read with random access from no other place."""
    if gcs.is_gcs(path):
        return epath.Path(path)
    return local_folder(path)


def local_folder(path: PathLike) -> Path:
    """`path` as a local folder, which is where stores are built."""
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


def _layout(kind: str, version: int) -> tuple[tuple[str, ...], ...]:
    names = tuple(SPANS.get(kind, SPAN).names or ())
    return COLUMNS.get(kind, ()), tuple(name for name in names if version > 1 or name != "offset")


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
