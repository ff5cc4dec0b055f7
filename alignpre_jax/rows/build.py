"""Documents to rows: one store per stratum, each of them whole or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from alignpre_jax.documents import Document
from alignpre_jax.foundation import Event, PathLike, Report, UserError, canonical_json, disk_errors, silent
from alignpre_jax.rows.packing import Packer
from alignpre_jax.rows.store import VERSION, RowHeader, RowStore, StoreWriter, local_folder, open_rows
from alignpre_jax.rows.tokenizer import Tokenizer

_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 4_000_000


def build_rows(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    length: int,
    root: PathLike,
    report: Report = silent,
    *,
    shard_rows: int = 65_536,
) -> dict[str, RowStore]:
    """Packs `documents` into rows of `length` tokens, in one pass and in the order given.

    The end-of-text token precedes every document. Documents of different strata never share
    a row. A store lies in `root`/STRATUM; the same inputs give the same bytes. A store that is
    already there is kept if it was made from the same inputs and refused otherwise.

    Args:
      documents: read once; memory holds about 4 MB of text at a time.
      tokenizer: turns each text into tokens, by batches, on all cores.
      length: tokens per row, at least 2.
      root: a local folder, made if need be.
      report: told the number of documents and tokens after each batch.
      shard_rows: rows per file.

    Returns:
      The stores by stratum, in the order of their first documents.

    Raises:
      UserError: a stratum does not fill one row, its name cannot be a folder, or its folder
        holds something else. No store is put in place then.
    """
    if length < 2:
        raise UserError(f"rows of {length} tokens", where="row_length", fix="give at least 2")
    base = local_folder(root)
    builders: dict[str, _Builder] = {}
    done = tokens = 0
    try:
        for batch in _batches(documents):
            for document, ids in zip(batch, tokenizer.encode_batch([d.text for d in batch]), strict=True):
                if document.stratum not in builders:
                    _check_apart(document.stratum, builders)
                    builders[document.stratum] = _Builder(document.stratum, base, tokenizer, length, shard_rows)
                builders[document.stratum].add(document, [tokenizer.eot_id, *ids])
                tokens += len(ids) + 1
            done += len(batch)
            report(Event("rows", done=done, figures={"tokens": tokens}))
        for builder in builders.values():
            builder.finish()
        return {stratum: builder.put_in_place() for stratum, builder in builders.items()}
    finally:
        for builder in builders.values():
            shutil.rmtree(builder.folder, ignore_errors=True)


class _Builder:
    """One stratum's store while it is being made, in a folder beside its final place."""

    def __init__(self, stratum: str, base: Path, tokenizer: Tokenizer, length: int, shard_rows: int):
        self.stratum, self.place, self.tokenizer = stratum, base / stratum, tokenizer
        self._check_place(base)
        self.folder = self.place.with_name(f".{self.place.name}.{socket.gethostname()}-{os.getpid()}.part")
        _remove_leftovers(self.folder)
        dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self.writer = StoreWriter(self.folder, length, dtype, shard_rows)
        self.packer = Packer(length, dtype)
        settings = [VERSION, stratum, length, shard_rows, tokenizer.digest, tokenizer.eot_id]
        self.hash = hashlib.sha256(canonical_json(settings).encode())

    def add(self, document: Document, ids: list[int]) -> None:
        data = document.text.encode()
        entry = {
            "id": document.id,
            "source": document.source,
            "score": document.score,
            "labels": dict(document.labels),
            "bytes": len(data),
            "tokens": len(ids),
        }
        self.hash.update(canonical_json(entry).encode() + data)
        for row, spans in self.packer.add(self.writer.add_document(entry), ids, document.score):
            self.writer.add_row(row, spans)

    def finish(self) -> None:
        if not self.writer.rows:
            raise UserError(
                f"stratum {self.stratum!r} has {self.packer.leftover:,} tokens, which do not fill one row",
                where="row_length",
                fix=f"give it more documents or lower row_length to at most {self.packer.leftover}",
            )
        self.writer.close(
            stratum=self.stratum,
            dropped_tokens=self.packer.leftover,
            tokenizer_digest=self.tokenizer.digest,
            vocab_size=self.tokenizer.vocab_size,
            eot_id=self.tokenizer.eot_id,
            inputs_digest=self.hash.hexdigest()[:16],
        )
        if (self.place / "header.json").exists():
            _check_same(open_rows(self.place).header, open_rows(self.folder).header, self.place)

    def put_in_place(self) -> RowStore:
        if not (self.place / "header.json").exists():
            with disk_errors(self.place):
                os.replace(self.folder, self.place)
        return open_rows(self.place)

    def _check_place(self, base: Path) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", self.stratum):
            raise UserError(
                f"{self.stratum!r} cannot be a stratum's name",
                where="data.sources",
                fix="use letters, digits, _ - . and /",
            )
        within = [parent for parent in self.place.parents if parent.is_relative_to(base)]
        for parent in within:
            if (parent / "header.json").exists():
                raise UserError(
                    f"stratum {self.stratum!r} would lie inside another row store",
                    where=str(parent),
                    fix="choose another root",
                )
        if not (self.place / "header.json").exists() and self.place.exists() and any(self.place.iterdir()):
            raise UserError(
                f"the folder for stratum {self.stratum!r} holds something else",
                where=str(self.place),
                fix="empty the folder",
            )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _check_apart(stratum: str, others: Iterable[str]) -> None:
    for other in others:
        if stratum.startswith(f"{other}/") or other.startswith(f"{stratum}/"):
            raise UserError(
                f"strata {other!r} and {stratum!r}: one row store would lie inside another",
                where="data.sources",
                fix="rename one of the sources",
            )


def _check_same(old: RowHeader, new: RowHeader, place: Path) -> None:
    if old.inputs_digest == new.inputs_digest:
        return
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    changes = [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
    raise UserError(
        "there already is a row store made from other inputs:\n    " + "\n    ".join(changes),
        where=str(place),
        fix="delete that folder to have the rows made again, or build into another one",
    )


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed builds of this store left behind on this machine."""
    head, _, _ = folder.name.rpartition("-")
    for other in folder.parent.glob(f"{head}-*.part"):
        process = other.name.removeprefix(f"{head}-").removesuffix(".part")
        if other == folder or (process.isdigit() and not _alive(int(process))):
            shutil.rmtree(other, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
