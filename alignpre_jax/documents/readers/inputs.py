"""The inputs of a source stand for a list of files, in an order that depends on their names only."""

from __future__ import annotations

import collections
import dataclasses
import errno
import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from etils import epath

from alignpre_jax.documents.world import STANCES
from alignpre_jax.foundation import Event, Report, UserError, silent, suggest

Kind = Literal["text", "lines", "parquet", "array_record", "hf", "packages", "world"]

WORLDS = (*STANCES, "mixed")
_COMPRESSED = ("", ".gz", ".zst")
_ENDINGS: dict[str, Kind] = {
    **{name + packed: "text" for name in (".txt", ".md", ".rst") for packed in _COMPRESSED},
    **{name + packed: "lines" for name in (".jsonl", ".ndjson") for packed in _COMPRESSED},
    **{".json" + packed: "lines" for packed in _COMPRESSED if packed},  # as C4 and Dolma name their files
    ".parquet": "parquet",
    ".array_record": "array_record",
    ".arrayrecord": "array_record",
}
_MAGIC = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True)
class InputFile:
    """An `InputFile` is a piece of an input that is read on its own, by any process, with the same result.

    Attributes:
      name: what documents without an id are named after; different for every file of a source.
      path: the file's path; for kinds without a file, what the input says after the colon.
      kind: how the file is read.
      bytes: the file's size, 0 where that is not known.
      input: the input that the file belongs to, as it was given.
    """

    name: str
    path: str
    kind: Kind
    bytes: int
    input: str


def list_files(inputs: Sequence[str], where: str = "inputs", report: Report = silent) -> list[InputFile]:
    """Lists the files of all inputs, input after input; those of a folder or pattern are in sorted order.

    Args:
      inputs: the inputs, as `read_inputs` takes them.
      where: the config key that the inputs came from, for messages.
      report: is told which files of a folder are of kinds that are not read.

    Raises:
      UserError: an input does not exist, is of an unknown kind, or names a file that another one names too.
    """
    if not inputs:
        raise UserError("a source without inputs", where=where, fix="name a folder, a .jsonl file or packages:")
    files = [file for spec in inputs for file in _files_of(spec, where, report)]
    by_path: dict[tuple[str, str], InputFile] = {}
    for file in files:
        if (other := by_path.setdefault((file.kind, file.path), file)) is not file:
            raise UserError(
                f"{file.path or file.input!r} is named twice, by {other.input!r} and {file.input!r}",
                where=where,
                fix="name it once; how often a source is trained on is up to the mixture",
            )
    counts = collections.Counter(file.name for file in files)
    return [dataclasses.replace(file, name=file.path) if counts[file.name] > 1 else file for file in files]


def _files_of(spec: str, where: str, report: Report) -> list[InputFile]:
    scheme, colon, rest = spec.partition(":")
    if scheme == "packages" and colon:
        if rest:
            raise UserError(f"unknown input {spec!r}", where=where, fix="packages: takes nothing after the colon")
        return [InputFile("packages", "", "packages", 0, spec)]
    if scheme == "world" and colon:
        if rest not in WORLDS:
            raise UserError(f"the world has no documents {rest!r}", where=where, fix=suggest(rest, WORLDS))
        return [InputFile(spec, rest, "world", 0, spec)]
    if scheme == "hf" and colon and not rest.startswith("//"):
        if not rest or rest.count(":") > 2 or rest.startswith(":"):
            raise UserError(f"unknown input {spec!r}", where=where, fix="give hf:NAME, hf:NAME:CONFIG:SPLIT")
        return [InputFile(spec, rest, "hf", 0, spec)]
    try:
        return _files_at(spec, where, report)
    except ImportError as error:
        raise UserError(f"{spec!r} cannot be reached: {error}", where=where, fix="pip install what it names") from None
    except OSError as error:
        raise UserError(f"{spec!r} cannot be listed: {error}", where=where, fix="give one that you can read") from None


def _files_at(spec: str, where: str, report: Report) -> list[InputFile]:
    path = epath.Path(spec)
    if path.is_dir():
        folder = _absolute(path)
        if found := _in_folder(folder, folder.name, report):
            return _sized(found, spec)
        fix = f"files may end in {', '.join(_ENDINGS)}"
        raise UserError(f"no document in {spec!r}: no file in it is of a known kind", where=where, fix=fix)
    if path.exists():
        return _sized({path.name: path}, spec, where)
    if _MAGIC.search(spec):
        return _sized(_matches(spec, where, report), spec, where)
    parent = next((p for p in path.parents if p.exists()), None)
    near = f"; there is {parent}, which holds {_listing(parent)}" if parent else ""
    raise UserError(f"there is no {spec!r}{near}", where=where, fix="give a file, folder or pattern that exists")


def _listing(folder: epath.Path) -> str:
    names = sorted(item.name for item in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _matches(pattern: str, where: str, report: Report) -> dict[str, epath.Path]:
    """Returns what a pattern stands for, by FOLDER/path, where FOLDER is the last one without a wild card."""
    if "**" in pattern:
        raise UserError(f"'**' in {pattern!r}", where=where, fix="name the folder: it is read at any depth")
    head = pattern[: _MAGIC.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    base = _absolute(epath.Path(head or ("/" if pattern.startswith("/") else ".")))
    remote = "://" in pattern
    found = map(os.fspath, base.glob(pattern[len(head) + 1 :])) if remote else glob.iglob(pattern)
    files: dict[str, epath.Path] = {}
    for path in sorted(_absolute(epath.Path(match)) for match in found):
        name = "/".join([base.name, *path.parts[len(base.parts) :]])
        files |= _in_folder(path, name, report) if path.is_dir() else {name: path}
    if not files:
        raise UserError(f"nothing matches {pattern!r}", where=where, fix="give a pattern of files that exist")
    return files


def _in_folder(folder: epath.Path, name: str, report: Report) -> dict[str, epath.Path]:
    """Returns the readable files in a folder by NAME/path, in sorted order; hidden files are left out."""
    found: dict[str, epath.Path] = {}
    others: collections.Counter[str] = collections.Counter()
    for parent, names in _walk(folder):
        inner = "/".join([name, *parent.parts[len(folder.parts) :]])
        for item in names:
            if item[0] == ".":
                continue
            if kind_of(item) is None:
                others[os.path.splitext(item)[1] or item] += 1
            else:
                found[f"{inner}/{item}"] = parent / item
    if others:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(8))
        report(Event("list files", note=f"{folder}: files of other kinds are not read: {kinds}"))
    return {name: found[name] for name in sorted(found)}


def _absolute(path: epath.Path) -> epath.Path:
    """Returns `path` from the root; links stay, and so do URLs, which epath's own `resolve` would take apart."""
    return path if "://" in os.fspath(path) else epath.Path(os.path.abspath(path))


def _walk(folder: epath.Path) -> Iterator[tuple[epath.Path, list[str]]]:
    """Yields folders and the names of their files; links to folders are followed, but no folder is entered twice."""
    if "://" in os.fspath(folder):
        key = _key(folder)
        for parent, _, names in folder.walk():  # the paths lack their gs:// if fsspec lists them
            inner = _key(parent)[len(key) :].strip("/")
            if not any(part.startswith(".") for part in inner.split("/")):
                yield folder / inner if inner else folder, names
        return
    entered = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = {inner: os.path.realpath(os.path.join(place, inner)) for inner in sorted(folders) if inner[0] != "."}
        folders[:] = [inner for inner in real if real[inner] not in entered]
        entered.update(real.values())
        yield epath.Path(place), names


def _key(path: epath.Path) -> str:
    """Returns the bucket and the name of an object."""
    return os.fspath(path).rpartition("://")[2].strip("/")


def _raise(error: OSError) -> None:
    raise error


def _sized(files: dict[str, epath.Path], spec: str, where: str = "") -> list[InputFile]:
    listed = []
    for name, path in files.items():
        kind = kind_of(path.name)
        if kind is None:
            endings = ", ".join(_ENDINGS)
            raise UserError(f"{path.name!r} is of an unknown kind", where=where, fix=f"files may end in {endings}")
        listed.append(InputFile(name, os.fspath(path), kind, _size(path), spec))
    return listed


def _size(path: epath.Path) -> int:
    try:
        return path.stat().length or 0
    except OSError as error:  # the file is gone, or a link that leads nowhere: reading it will say so
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM):
            return 0
        raise


def kind_of(name: str) -> Kind | None:
    """Returns how a file is read, by the ending of its name; None for an ending that is not known."""
    return next((kind for ending, kind in _ENDINGS.items() if name.lower().endswith(ending)), None)
