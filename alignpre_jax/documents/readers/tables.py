"""Documents are read from the rows of Parquet files and the records of ArrayRecord files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from etils import epath

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.quarantine import Quarantine
from alignpre_jax.documents.readers.inputs import InputFile
from alignpre_jax.documents.readers.keys import MalformedError
from alignpre_jax.documents.readers.records import (
    ReadConfig,
    decoded,
    make_document,
    parse_document,
    refuse_nul,
    text_document,
)
from alignpre_jax.foundation import UserError

_BATCH_BYTES = 1 << 23  # how much of a row group is decoded at once
_BATCH_RECORDS = 64


def row_document(row: dict[str, Any], default_id: str, config: ReadConfig) -> Document:
    """Makes a document from a row of a table; a null counts as a missing field, except in the text itself."""
    keys = config.keys
    record = {key: value for key, value in row.items() if value is not None or key == keys.text}
    body = keys.body_names(config.kind)
    for key, value in record.items():
        if isinstance(value, bytes):
            record[key] = decoded(value) if key in body else value.decode(errors="replace")
    text = record.get(keys.text)
    if config.kind == "text" and isinstance(text, str):
        _refuse_longer(text, config)
    labels = record.get(keys.labels)
    if isinstance(labels, list) and all(isinstance(item, tuple) and len(item) == 2 for item in labels):
        record[keys.labels] = dict(labels)  # pyarrow gives a map as a list of pairs
    document = make_document(record, default_id, config)
    if config.kind != "text":
        _refuse_longer(document.text, config)
    refuse_nul(document.text)
    return document


def read_parquet(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[tuple[int, Document]]:
    """Yields the rows, from 1, of a Parquet file, row group by row group; only the columns that are used are read.

    A damaged row group costs its own rows only.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("reading .parquet files needs pyarrow", where=file.path, fix="pip install pyarrow") from None
    damage = (pa.ArrowException, OSError, ValueError, OverflowError)  # a damaged name is a UnicodeDecodeError
    try:
        raw = epath.Path(file.path).open("rb")
    except OSError as error:
        quarantine.refuse(file.path, 0, str(error))
        return
    with raw:
        try:
            table = pq.ParquetFile(raw, buffer_size=1 << 20)
            names = table.schema_arrow.names
            groups = [table.metadata.row_group(group) for group in range(table.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        except damage as error:
            quarantine.refuse(file.path, 0, f"no Parquet file that can be read: {error}")
            return
        known = config.keys.names(config.kind)
        wanted = [name for name in names if name in known]
        reason = config.keys.missing(config.kind, names)
        if not reason and len(set(wanted)) < len(wanted):
            twice = next(name for name in wanted if wanted.count(name) > 1)
            reason = f"not one column {twice!r} among {names[:8]}"
        if reason:
            quarantine.refuse(file.path, 0, reason, max(1, sum(rows for rows, _ in sizes)))
            return
        first = 1
        for group, (rows, size) in enumerate(sizes):
            step = max(1, min(4096, _BATCH_BYTES * rows // max(1, size)))
            batches = table.iter_batches(step, row_groups=[group], columns=wanted)
            done = 0
            while done < rows:
                try:
                    batch = next(batches, None)
                    records = [] if batch is None else _rows(batch)
                except damage as error:
                    records, reason = [], str(error)
                else:
                    reason = "there are fewer than it says"
                if not records:
                    last = first + rows - 1
                    reason = f"rows {first + done:,} to {last:,} cannot be read: {reason}"
                    quarantine.refuse(file.path, first + done, reason, rows - done)
                    break
                for number, record in enumerate(records, first + done):
                    try:
                        yield number, row_document(record, f"{file.name}:{number}", config)
                    except MalformedError as error:
                        quarantine.refuse(file.path, number, str(error))
                done += len(records)
            first += rows


def read_array_record(file: InputFile, config: ReadConfig, quarantine: Quarantine) -> Iterator[tuple[int, Document]]:
    """Yields the records, from 1, of an ArrayRecord file.

    A record that starts with "{" is JSON, as a line of a JSONL file is; any other is a document's text in UTF-8. A
    damaged chunk of the file costs its own records only.
    """
    from array_record.python import array_record_module

    with _local_copy(file.path, quarantine) as path:
        if path is None:
            return
        reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")
        if not reader.ok():
            quarantine.refuse(file.path, 0, "no ArrayRecord file that can be read")
            return
        total = reader.num_records()
        for start in range(0, total, _BATCH_RECORDS):
            numbers = range(start, min(start + _BATCH_RECORDS, total))
            for number, data in _records(reader, numbers):
                try:
                    if isinstance(data, str):
                        raise MalformedError(f"cannot be read: {data}")
                    yield number, _record_document(data, f"{file.name}:{number}", config)
                except MalformedError as error:
                    quarantine.refuse(file.path, number, str(error))


def _rows(batch: Any) -> list[dict[str, Any]]:
    """Returns the rows of a record batch; a text that is not UTF-8 comes as bytes."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            columns.append(column.to_pylist())
        except UnicodeDecodeError:
            if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
                raise pa.ArrowInvalid("a column of nested strings is not UTF-8") from None
            columns.append(
                column.view(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()).to_pylist()
            )
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _record_document(data: bytes, default_id: str, config: ReadConfig) -> Document:
    if len(data) > config.max_record_bytes:
        raise MalformedError(f"longer than {config.max_record_bytes:,} bytes")
    if data.startswith(b"{"):
        return parse_document(data, default_id, config)
    return text_document(decoded(data), default_id, config)


def _refuse_longer(text: str, config: ReadConfig) -> None:
    if len(text) > config.max_record_bytes:
        raise MalformedError(f"longer than {config.max_record_bytes:,} bytes")


def _records(reader: Any, numbers: range) -> Iterator[tuple[int, bytes | str]]:
    """Yields records with their numbers, from 1; in place of a record that cannot be read, the reason."""
    try:
        yield from enumerate(reader.read(list(numbers)), numbers.start + 1)
        return
    except RuntimeError:
        pass  # the records are read one by one below, to find out which of them are damaged
    for number in numbers:
        try:
            data = reader.read([number])[0]
        except RuntimeError as error:
            data = str(error)
        yield number + 1, data


@contextlib.contextmanager
def _local_copy(path: str, quarantine: Quarantine) -> Iterator[str | None]:
    """Yields the path, or that of a temporary copy of a remote file, which the library cannot read; None on failure."""
    if "://" not in path:
        if not os.access(path, os.R_OK):
            quarantine.refuse(path, 0, "there is no such file, or none that may be read")
            yield None
        else:
            yield path
        return
    with tempfile.NamedTemporaryFile(prefix="alignpre-", suffix=".array_record") as copy:
        try:
            with epath.Path(path).open("rb") as file:
                shutil.copyfileobj(file, copy)
            copy.flush()
        except OSError as error:
            quarantine.refuse(path, 0, str(error))
            yield None
            return
        yield copy.name
