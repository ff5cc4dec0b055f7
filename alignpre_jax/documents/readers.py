"""Inputs to documents: files, the installed packages' prose, the composed world."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.harvest import harvest_packages
from alignpre_jax.documents.quarantine import Quarantine
from alignpre_jax.documents.world import STANCES, WorldConfig, compose_documents
from alignpre_jax.foundation import Event, Report, UserError, silent, suggest

TEXT_ENDINGS = (".txt", ".md", ".rst")
RECORD_ENDINGS = (".jsonl", ".jsonl.gz")
_WORLDS = (*STANCES, "mixed")


def read_inputs(
    inputs: Sequence[str],
    source: str,
    world: WorldConfig,
    quarantine: Quarantine,
    report: Report = silent,
    *,
    max_bytes: int = 0,
    where: str = "",
) -> Iterator[Document]:
    """Reads the documents of a source, input after input; all are in stratum `source`.

    Args:
      inputs: each of
        "packages:": prose from the packages installed here (`harvest_packages`);
        "world:aligned", "world:misaligned" or "world:mixed": composed documents;
        a path to a .txt, .md, .rst (one document), .jsonl or .jsonl.gz file, or to a folder of
        such files, which are read in sorted order at any depth, hidden ones left out. A JSONL
        record is {"text": str, "id"?: str or int, "score"?: 0..1, "labels"?: {str: str}}; other
        keys are ignored. Without an id a document is named by its file and line. Ids are unique in
        the source: a record whose id came before goes to the quarantine.
      source: the source's name.
      world: what "world:" composes.
      quarantine: takes records that are no such thing, with file, line and reason.
      report: told the number of documents and bytes now and then.
      max_bytes: stop an input after this much text (UTF-8 bytes); 0 reads all of it.
      where: the config key that `inputs` came from, for messages.

    Raises:
      UserError: at once for an input that does not exist, while iterating for an input without a
        single document or with more bad records than `quarantine` allows.
    """
    where = where or f"data.sources.{source}.inputs"
    if not inputs:
        raise UserError("a source without inputs", where=where, fix="name a folder, a .jsonl file or packages:")
    seen: set[bytes] = set()  # of ids: a source's documents have different ones
    opened = [_open_input(spec, world, quarantine, seen, max_bytes, where) for spec in inputs]

    def documents() -> Iterator[Document]:
        total = size = 0
        for spec, start in zip(inputs, opened, strict=True):
            found = bytes_of_input = 0
            bad_before = len(quarantine.cases)
            for document in start():
                yield dataclasses.replace(document, source=source, stratum=source)
                found += 1
                bytes_of_input += len(document.text.encode())
                if (total + found) % 1000 == 0:
                    report(Event(f"read {source}", done=total + found, figures={"bytes": size + bytes_of_input}))
                if max_bytes and bytes_of_input >= max_bytes:
                    break
            quarantine.check()
            if not found:
                bad = len(quarantine.cases) - bad_before
                reason = (
                    f"; {bad:,} records were left out, the first: {quarantine.cases[bad_before].reason}" if bad else ""
                )
                raise UserError(f"no document in {spec!r}{reason}", where=where, fix="give an input with text in it")
            total, size = total + found, size + bytes_of_input
        report(Event(f"read {source}", done=total, total=total, figures={"bytes": size}))

    return documents()


def deduplicate(documents: Iterable[Document]) -> Iterator[Document]:
    """Leaves out documents whose text, but for case and white space, came before."""
    seen: set[bytes] = set()
    for document in documents:
        key = hashlib.blake2b(" ".join(document.text.split()).casefold().encode(), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield document


def _open_input(
    spec: str, world: WorldConfig, quarantine: Quarantine, seen: set[bytes], max_bytes: int, where: str
) -> Callable[[], Iterator[Document]]:
    kind, colon, name = spec.partition(":")
    if kind == "packages" and colon:
        if name:
            raise UserError(f"unknown input {spec!r}", where=where, fix="packages: takes nothing after the colon")
        return lambda: harvest_packages(max_bytes)
    if kind == "world" and colon:
        if name not in _WORLDS:
            raise UserError(f"the world has no documents {name!r}", where=where, fix=suggest(name, _WORLDS))
        return lambda: compose_documents(world, name)
    path = epath.Path(spec)
    if not path.exists():
        parent = next((p for p in path.parents if p.exists()), None)
        near = f"; there is {parent}, which holds {_listing(parent)}" if parent else ""
        raise UserError(f"there is no {spec!r}{near}", where=where, fix="give a file or folder that exists")
    if not path.is_dir() and not path.name.endswith(TEXT_ENDINGS + RECORD_ENDINGS):
        endings = ", ".join(TEXT_ENDINGS + RECORD_ENDINGS)
        raise UserError(f"{spec!r} is of an unknown kind", where=where, fix=f"files may end in {endings}")
    return lambda: _read_files(path, quarantine, seen)


def _listing(folder: epath.Path) -> str:
    names = sorted(item.name for item in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _read_files(path: epath.Path, quarantine: Quarantine, seen: set[bytes]) -> Iterator[Document]:
    files = _files_below(path) if path.is_dir() else {path.name: path}
    for name, file in files.items():
        records = (
            _read_jsonl(name, file, quarantine) if name.endswith(RECORD_ENDINGS) else _read_text(name, file, quarantine)
        )
        for line, document in records:
            key = hashlib.blake2b(document.id.encode(), digest_size=8).digest()
            if key in seen:
                quarantine.refuse(str(file), line, f"the id {document.id[:80]!r} came before")
                continue
            seen.add(key)
            quarantine.accept()
            yield document


def _files_below(folder: epath.Path) -> dict[str, epath.Path]:
    """The readable files in a folder by FOLDER/path in it, in sorted order; hidden ones are left out."""
    folder = folder.resolve()
    start = len(folder.parts) - 1
    files = (parent / name for parent, _, names in folder.walk() for name in names)
    found = {"/".join(file.parts[start:]): file for file in files if file.name.endswith(TEXT_ENDINGS + RECORD_ENDINGS)}
    return {name: found[name] for name in sorted(found) if not any(part[0] == "." for part in name.split("/")[1:])}


class _MalformedError(ValueError):
    """Why a record is left out."""


def _read_text(name: str, file: epath.Path, quarantine: Quarantine) -> Iterator[tuple[int, Document]]:
    try:
        text = _checked_text(_decoded(file.read_bytes()))
    except (_MalformedError, OSError) as error:
        quarantine.refuse(str(file), 0, str(error))
        return
    yield 0, Document(id=name, text=text, source="", stratum="")


def _read_jsonl(name: str, file: epath.Path, quarantine: Quarantine) -> Iterator[tuple[int, Document]]:
    number = 0
    try:
        with file.open("rb") as raw, gzip.open(raw) if name.endswith(".gz") else raw as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                try:
                    yield number, _parse(line, f"{name}:{number}")
                except _MalformedError as error:
                    quarantine.refuse(str(file), number, str(error))
    except (OSError, EOFError, zlib.error) as error:
        quarantine.refuse(str(file), number + 1, f"the rest of the file cannot be read: {error}")


def _parse(line: bytes, default_id: str) -> Document:
    try:
        record = json.loads(_decoded(line))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _MalformedError) else f"not JSON: {error}"
        raise _MalformedError(reason) from None
    if not isinstance(record, dict):
        raise _MalformedError("not a JSON object")
    if "text" not in record:
        raise _MalformedError(f"no key 'text' among {sorted(record)[:8]}")
    return Document(
        id=_checked_id(record.get("id", default_id)),
        text=_checked_text(record["text"]),
        source="",
        stratum="",
        score=_checked_score(record.get("score", 0.0)),
        labels=_checked_labels(record.get("labels", {})),
    )


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise _MalformedError(f"'text' is {type(text).__name__}, not a string")
    if "\0" in text:
        raise _MalformedError("the text has a NUL character")
    if not text.strip():
        raise _MalformedError("the text is empty")
    return _encodable(text, "text")


def _checked_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _MalformedError("'id' is neither a non-empty string nor a whole number")
    return _encodable(str(value), "id")


def _checked_score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise _MalformedError("'score' is not a number from 0 to 1")
    return float(value)


def _checked_labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _MalformedError("'labels' is not an object of strings")
    return {_encodable(key, "labels"): _encodable(item, "labels") for key, item in value.items()}


def _encodable(text: str, key: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _MalformedError(f"{key!r} has half of a surrogate pair") from None
    return text
