"""The evidence of an audit is enough to audit again by another rule, without scanning the corpus again.

It is a file of JSON lines: .jsonl, .jsonl.gz or .jsonl.zst. Each line but the last is a document that mentions AI,
{"source", "id", "place", "key", "weight", "digest", "bytes", "words", "language", "hits", "passages"}: these are the
fields of `Finding`, with `hits` as `Hits.to_json` writes them. Only documents that may become examples have passages.
The last line is {"format", "sources": {NAME: census}, "duplicates", "inputs", "sample", "versions"}, which holds what
was counted over all documents. A file without a last line was not finished.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from etils import epath

from alignpre_jax.documents.audit.records import FORMAT, Passage
from alignpre_jax.documents.audit.scan import Finding
from alignpre_jax.documents.discourse import Hits
from alignpre_jax.documents.readers.streams import open_stream
from alignpre_jax.foundation import PathLike, UserError, disk_errors

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class EvidenceWriter:
    """Writes an evidence file as a context manager.

    The file appears when the context is left without an error, and is never there in part.
    """

    def __init__(self, path: PathLike):
        self._place = epath.Path(path)
        if not self._place.name.endswith(ENDINGS):
            fix = f"let it end in {', '.join(ENDINGS)}"
            raise UserError(f"evidence cannot be written as {self._place.name!r}", where="--evidence", fix=fix)

    def __enter__(self) -> EvidenceWriter:
        with disk_errors(self._place):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            remote = "://" in os.fspath(self._place)  # an object store shows whole objects only
            self._part = self._place if remote else self._place.parent / f".{self._place.name}.{os.getpid()}.part"
            self._raw = self._part.open("wb")
            self._file = _compressed(self._raw, self._place.name)
        return self

    def add(self, finding: Finding) -> None:
        """Writes the line of a document that mentions AI."""
        assert finding.hits is not None
        passages = [[passage.text, passage.marks] for passage in finding.passages]
        self._write(finding._asdict() | {"hits": finding.hits.to_json(), "passages": passages})

    def close_with(self, summary: Mapping[str, Any]) -> None:
        """Writes the last line, the summary of all documents."""
        self._write({"format": FORMAT, **summary})

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with disk_errors(self._place):
            with self._raw, self._file:
                pass
            if self._part is not self._place:
                if kind is None:
                    os.replace(self._part, self._place)
                else:
                    Path(self._part).unlink()

    def _write(self, row: Mapping[str, Any]) -> None:
        with disk_errors(self._place):
            self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def read_evidence(path: PathLike) -> Iterator[Finding | dict[str, Any]]:
    """Yields the findings of an evidence file, then its last line as a dictionary.

    Raises:
      UserError: the file is not there, is not evidence, or ends too early.
    """
    fix = "give a file that `alignpre audit --evidence=FILE` has written"
    if not epath.Path(path).exists():
        raise UserError(f"there is no {os.fspath(path)!r}", where="--evidence", fix=fix)
    number, last = 0, None
    try:
        with open_stream(os.fspath(path)) as lines:
            for line in lines:
                row = json.loads(line)
                number += 1
                if "format" in row:
                    if row["format"] != FORMAT:
                        raise UserError(f"evidence of format {row['format']}, not {FORMAT}", where=str(path), fix=fix)
                    last = row
                    yield row
                else:
                    passages = tuple(Passage(text, tuple(map(tuple, marks))) for text, marks in row["passages"])
                    yield Finding(**row | {"hits": Hits.from_json(row["hits"]), "passages": passages})
    except (ValueError, KeyError, TypeError, EOFError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"not evidence of an audit: {error!r}", where=f"{path}:{number + 1}", fix=fix) from None
    if last is None:
        raise UserError("the evidence ends before its last line", where=f"{path}:{number}", fix="run the audit again")


def _compressed(raw: IO[bytes], name: str) -> IO[bytes]:
    if name.endswith(".gz"):
        return gzip.GzipFile("", "wb", 6, raw, mtime=0)  # type: ignore[return-value]
    if name.endswith(".zst"):
        try:
            import zstandard
        except ImportError:
            fix = "pip install zstandard, or let the name end in .gz"
            raise UserError("zstandard is not installed", where="--evidence", fix=fix) from None
        return zstandard.ZstdCompressor().stream_writer(raw)
    return raw
