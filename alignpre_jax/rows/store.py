"""The row store: packed rows on disk, with random access.

A store is a folder. It can be read without this package:

    header.json                   `RowHeader` as JSON
    rows-00000.array_record ...   `shard_rows` rows each (the last shard has the rest)
    documents.array_record        one JSON object per document:
                                  {"id", "source", "score", "labels", "bytes", "tokens"}

The shards are ArrayRecord files. Record i of shard s is row s * shard_rows + i: the header's
`columns` one after the other, each a little-endian array of `length` items, and then the
row's spans to the end of the record, each of the header's `span_fields`. A span is filled by
document number `document` from position `start` to the next span's start; the first one
starts at 0.

What a later version adds comes as further columns (a loss mask for chat rows, the rejected
answer's tokens for pair rows) or span fields. A reader refuses columns that it does not know:
training on a row without its loss mask would be silently wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from alignpre_jax.foundation import PathLike, UserError, build, canonical_json, disk_errors, read_json, write_json
from alignpre_jax.rows.packing import SPAN

VERSION = 1
_IN_MEMORY_BYTES = 256_000_000  # of tokens: smaller stores are read whole, a shard at a time


@dataclasses.dataclass(frozen=True)
class RowHeader:
    """What a row store holds. `tokens` = rows * length; each document's end-of-text token counts."""

    version: int
    stratum: str
    length: int  # tokens per row
    rows: int
    tokens: int
    documents: int
    dropped_tokens: int  # at the end of the last document, too few for a row
    tokenizer_digest: str
    vocab_size: int
    eot_id: int
    inputs_digest: str  # of the documents and everything else that determines the bytes
    shard_rows: int
    columns: tuple[tuple[str, ...], ...]  # (name, dtype)
    span_fields: tuple[tuple[str, ...], ...]  # (name, dtype)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch of rows. Segments number a row's spans 1, 2, ... from left to right."""

    tokens: np.ndarray  # int32 [n, length]
    segments: np.ndarray  # int32 [n, length]


@dataclasses.dataclass(frozen=True)
class Span:
    """The part [start, end) of a row that one document fills."""

    document_id: str
    start: int
    end: int
    score: float


class RowStore:
    """Random access to the rows of one stratum.

    It is a path and what is needed to read from it: threads may share it, and a copy sent to
    another process, or inherited by a fork, opens the files anew.
    """

    def __init__(self, path: PathLike):
        self.path = local_folder(path)
        if not (self.path / "header.json").exists():
            raise UserError("there is no row store here", where=str(self.path), fix="build the rows first")
        raw = read_json(self.path / "header.json")
        version = raw.get("version") if isinstance(raw, Mapping) else None
        if version != VERSION:
            raise UserError(
                f"a row store of version {version!r}; this program reads version {VERSION}",
                where=str(self.path / "header.json"),
                fix="build the rows again with this program",
            )
        self.header = build(RowHeader, raw, where=str(self.path / "header.json"))
        known = (("tokens",), ("document", "start", "score"))
        found = tuple(tuple(field[0] for field in fields) for fields in (self.header.columns, self.header.span_fields))
        if found != known:
            raise UserError(
                f"rows with columns {found}; this program reads {known}",
                where=str(self.path / "header.json"),
                fix="read the store with the program that wrote it",
            )
        self._token_dtype = np.dtype(self.header.columns[0][1])
        self._span_dtype = np.dtype([(name, dtype) for name, dtype in self.header.span_fields])
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
          UserError: a shard is damaged or missing.
        """
        records = self._records(np.asarray(indices, np.int64))
        length = self.header.length
        split = length * self._token_dtype.itemsize
        tokens = np.frombuffer(b"".join(record[:split] for record in records), self._token_dtype)
        spans = np.frombuffer(b"".join(record[split:] for record in records), self._span_dtype)
        counts = [(len(record) - split) // self._span_dtype.itemsize for record in records]
        segments = np.zeros((len(records), length), np.int32)
        segments[np.repeat(np.arange(len(records)), counts), spans["start"]] = 1
        np.cumsum(segments, axis=1, out=segments)
        return Rows(tokens.reshape(len(records), length).astype(np.int32), segments)

    def spans(self, index: int) -> list[Span]:
        """What fills row `index`, from left to right."""
        (record,) = self._records(np.asarray([index], np.int64))
        spans = np.frombuffer(record, self._span_dtype, offset=self.header.length * self._token_dtype.itemsize)
        ends = [*spans["start"][1:].tolist(), self.header.length]
        return [
            Span(self.document(int(number))["id"], int(start), end, float(score))
            for (number, start, score), end in zip(spans, ends, strict=True)
        ]

    def document(self, number: int) -> dict[str, Any]:
        """The entry of one document in the documents table."""
        return json.loads(self._read("documents.array_record", self.header.documents, [number])[0])

    def documents(self) -> Iterator[dict[str, Any]]:
        """The documents table, in the order in which the documents fill the rows."""
        for start in range(0, self.header.documents, 4096):
            numbers = list(range(start, min(start + 4096, self.header.documents)))
            yield from map(json.loads, self._read("documents.array_record", self.header.documents, numbers))

    def _open(self) -> None:
        self._process = os.getpid()
        self._readers: dict[str, Any] = {}
        self._in_memory: dict[int, list[bytes]] = {}
        self._is_small = self.header.tokens * self._token_dtype.itemsize <= _IN_MEMORY_BYTES

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

    def _read(self, name: str, held: int, indices: list[int]) -> list[bytes]:
        if self._process != os.getpid():
            self._open()
        try:
            reader = self._readers.get(name)
            if reader is None:
                reader = array_record_module.ArrayRecordReader(
                    str(self.path / name), "readahead_buffer_size:0,max_parallelism:0"
                )
                if reader.num_records() != held:  # the library reports a missing file as an empty one
                    raise RuntimeError(f"{reader.num_records()} of {held} records are readable")
                self._readers[name] = reader
            return reader.read(indices)
        except RuntimeError as error:
            raise UserError(
                f"the row store is damaged: {error}",
                where=str(self.path / name),
                fix="delete the store's folder and build the rows again",
            ) from None


def open_rows(path: PathLike) -> RowStore:
    """Opens the row store in folder `path`.

    Raises:
      UserError: there is no row store, or it is of another version.
    """
    return RowStore(path)


class StoreWriter:
    """Writes the files of a row store into `folder`, which must be new; `close` makes it readable."""

    def __init__(self, folder: Path, length: int, token_dtype: np.dtype, shard_rows: int):
        self._folder, self._length, self._token_dtype, self._shard_rows = folder, length, token_dtype, shard_rows
        with disk_errors(folder), _library_errors():
            folder.mkdir(parents=True)
            self._documents = self._create("documents.array_record", "group_size:64")
        self._shard: Any = None
        self.rows = 0
        self.documents = 0

    def add_document(self, entry: Mapping[str, Any]) -> int:
        """Adds a line to the documents table and returns its number."""
        with disk_errors(self._folder), _library_errors():
            self._documents.write(canonical_json(entry).encode())
        self.documents += 1
        return self.documents - 1

    def add_row(self, tokens: np.ndarray, spans: np.ndarray) -> None:
        """Adds a row: tokens [length], spans [n] of dtype SPAN."""
        assert tokens.shape == (self._length,)
        assert (tokens.dtype, spans.dtype) == (self._token_dtype, SPAN)
        shard, within = divmod(self.rows, self._shard_rows)
        with disk_errors(self._folder), _library_errors():
            if within == 0:
                self._finish(self._shard)
                self._shard = self._create(shard_name(shard), "group_size:1,uncompressed")
            self._shard.write(tokens.tobytes() + spans.tobytes())
        self.rows += 1

    def close(self, **facts: Any) -> None:
        """Finishes all files; `facts` are the fields of the header that the writer does not know."""
        with disk_errors(self._folder), _library_errors():
            self._finish(self._shard)
            self._finish(self._documents)
        header = RowHeader(
            version=VERSION,
            length=self._length,
            rows=self.rows,
            tokens=self.rows * self._length,
            documents=self.documents,
            shard_rows=self._shard_rows,
            columns=(("tokens", self._token_dtype.str),),
            span_fields=tuple((name, SPAN[name].str) for name in SPAN.names or ()),
            **facts,
        )
        write_json(self._folder / "header.json", header)
        for file in self._folder.iterdir():
            with disk_errors(file), open(file, "rb") as opened:
                os.fsync(opened.fileno())

    def _create(self, name: str, options: str) -> Any:
        return array_record_module.ArrayRecordWriter(str(self._folder / name), options)

    def _finish(self, writer: Any) -> None:
        if writer is not None:
            writer.close()


def shard_name(shard: int) -> str:
    """The file name of a shard."""
    return f"rows-{shard:05d}.array_record"


def local_folder(path: PathLike) -> Path:
    """`path` as a local folder; ArrayRecord files are read with random access and cannot be at a URL."""
    if "://" in os.fspath(path):
        raise UserError(
            "row stores are on local or mounted disks", where=os.fspath(path), fix="copy the folder or mount the bucket"
        )
    return Path(path)


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
