"""This module turns documents into row stores, one per stratum, each of which is either whole or absent."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import itertools
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from alignpre_jax.foundation import Event, PathLike, Report, UserError, canonical_json, disk_errors, silent, write_json
from alignpre_jax.rows.blocks import BLOCK_BYTES, Counts, Recipe, block_digest, load_counts
from alignpre_jax.rows.crew import Crew, Reply
from alignpre_jax.rows.places import check_apart, check_name, check_place, refuse_other
from alignpre_jax.rows.shards import Part, check_size, digest_inputs, make_header, shard_parts
from alignpre_jax.rows.store import RowHeader, RowStore, documents_name, local_folder, open_rows, shard_name
from alignpre_jax.rows.template import Template
from alignpre_jax.rows.tokenizer import Tokenizer

if TYPE_CHECKING:
    from alignpre_jax.documents import Document

PLAIN = Template()
BUILDING = ".building"  # the folder below the root for the finished parts of stores that are not finished
_LOCK_SECONDS = 60

TooSmallPolicy = Literal["refuse", "keep"]


class Line(NamedTuple):
    """A document on its way to a block."""

    stratum: str
    kind: str  # one of those of `Recipe.kind`
    data: bytes  # the document as JSON, see `blocks.make_block`


def build_rows(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    length: int,
    root: PathLike,
    report: Report = silent,
    *,
    packing: str = "concat",
    template: Template = PLAIN,
    shard_rows: int = 65_536,
    block_bytes: int = BLOCK_BYTES,
    workers: int = 0,
    too_small: TooSmallPolicy = "refuse",
) -> dict[str, RowStore]:
    """Packs `documents` into rows of `length` tokens, in one pass and in the order given.

    The end-of-text token stands before every text, and before every conversation for which the template writes no
    special token of its own first. Documents of different strata never share a row, and all documents of a stratum are
    of one kind. For chats and pairs, the rows' mask says what is to be learnt: what the assistant says, with the end of
    its turn. A chat loses what does not fit into a row, while a pair or a prompt is whole or left out; the header
    counts all of these losses.

    A store lies in `root`/STRATUM. The same inputs give the same bytes, whatever the number
    of workers and however often the build was killed: finished blocks of about 4 MB of documents
    stay in `root`/.building, and the next build of the same documents takes them over. A store that is
    already there is kept if it was made from the same inputs and refused otherwise.

    Args:
      documents: the documents, which are read once; memory holds a few blocks per worker and stratum.
      tokenizer: turns texts into tokens.
      length: tokens per row, at least 2.
      root: a local folder, made if need be.
      report: told the number of documents and tokens after each block.
      packing: "concat", which cuts the documents' concatenation every `length` tokens and drops only the tokens
        after the last full row (the header counts them), or "best_fit", which cuts only documents longer than a
        row and pads the rest of each row (the header counts the padding). Chats, pairs and prompts must not be cut
        in two, so they need "best_fit".
      template: writes the chats, and the prompts that are conversations.
      shard_rows: rows per file.
      block_bytes: bytes of documents in a block; "best_fit" packs within blocks, so they should hold many rows.
      workers: the number of processes; 0 chooses one per core, or only this process for little text.
      too_small: what becomes of strata that do not fill one row: "refuse" them, or "keep" a store without rows, which
        is enough for a stage that does not draw from it.

    Returns:
      The stores by stratum, in the order of their first documents.

    Raises:
      TooSmall: a stratum does not fill one row; no store is put in place then.
      UserError: a stratum's name cannot be a folder, its folder holds something else, its documents are of several
        kinds, or what would be learnt of it is not what the assistant said; no store is put in place then. It is also
        raised when workers were killed again and again at one task.
    """
    if packing not in ("concat", "best_fit"):
        raise UserError(f"no packing is called {packing!r}", where="packing", fix="choose concat or best_fit")
    lines = (Line(document.stratum, document.kind, document_line(document)) for document in documents)
    recipe = Recipe("text", packing, length, template, block_bytes)
    return make_stores(lines, recipe, tokenizer, root, report, shard_rows, workers, too_small)


def document_line(document: Document) -> bytes:
    """Returns a document as the JSON that blocks are made of.

    Raises:
      UserError: a document that is not a text has scored spans, or a text cannot be written as UTF-8.
    """
    if document.spans and document.kind != "text":
        fix = "leave the spans out: of chats, pairs and prompts the mask says what is learnt"
        what = f"scored spans of a document of kind {document.kind!r}; only texts can have them"
        raise UserError(what, where=f"document {document.id}", fix=fix)
    return line_of({name: value for name, value in document.to_json().items() if name != "stratum"})


def line_of(facts: dict[str, Any]) -> bytes:
    """Returns a document's facts as JSON.

    Raises:
      UserError: a text cannot be written as UTF-8.
    """
    try:
        return canonical_json(facts).encode()
    except UnicodeEncodeError as error:
        fix = "replace lone surrogates"
        raise UserError(f"a text that is no Unicode: {error}", where=f"document {facts['id']}", fix=fix) from None


def make_stores(
    lines: Iterable[Line],
    recipe: Recipe,
    tokenizer: Tokenizer,
    root: PathLike,
    report: Report = silent,
    shard_rows: int = 65_536,
    workers: int = 0,
    too_small: TooSmallPolicy = "refuse",
) -> dict[str, RowStore]:
    """Makes the stores of documents that come as lines of JSON, each of which says its kind.

    See `build_rows` for the arguments, and `blocks.make_block` for the JSON.
    """
    if recipe.length < 2:
        raise UserError(f"rows of {recipe.length} tokens", where="rows.length", fix="give at least 2")
    base = local_folder(root)
    strata: dict[str, _Stratum] = {}
    with _lock(base, report) as lock, Crew(recipe, tokenizer, workers, lock.fileno()) as crew:
        build = _Build(crew, report)
        try:
            for line in lines:
                name = line.stratum
                with _refusing():
                    if name not in strata:
                        check_name(name)
                        check_apart(name, strata)
                        own = dataclasses.replace(recipe, kind=line.kind)
                        if line.kind in ("text", "tokens"):  # the rows of these do not depend on the template
                            own = dataclasses.replace(own, template=PLAIN)
                        strata[name] = _Stratum(name, base, own, tokenizer, shard_rows)
                    strata[name].check_kind(line.kind)
                strata[name].add(line.data, build)
            for stratum in strata.values():
                stratum.end_block(build)
            crew.flush()
            build.wait()
            with _refusing():
                for stratum in strata.values():
                    stratum.check(too_small)
        except _Refused as refused:
            for stratum in strata.values():
                shutil.rmtree(stratum.folder, ignore_errors=True)
            raise refused.error from None
        for stratum in strata.values():
            stratum.write_shards(build)
        build.wait()
        return {name: stratum.put_in_place() for name, stratum in strata.items()}


class _Refused(Exception):
    """A user's mistake in what is to be built, after which nothing is worth keeping."""

    def __init__(self, error: UserError):
        super().__init__(str(error))
        self.error = error


class _Build:
    """The tasks that the crew has been asked to do, and how far it has come with them."""

    def __init__(self, crew: Crew, report: Report):
        self._crew, self._report = crew, report
        self._asked: collections.deque[tuple[Reply, _Block | None]] = collections.deque()
        self._documents = self._tokens = 0

    def ask(self, task: dict[str, Any], payload: bytes = b"", block: _Block | None = None) -> None:
        """Gives the crew a task, and waits for the oldest tasks as long as many are not done."""
        self._asked.append((self._crew.submit(task, payload), block))
        self.wait(3 * self._crew.workers + 4)

    def wait(self, left: int = 0) -> None:
        """Waits until at most `left` tasks are not done."""
        while len(self._asked) > left:
            reply, block = self._asked.popleft()
            result = reply.result()
            if block:
                block.counts = Counts(*result["counts"])
                self.tell(block.counts)

    def tell(self, counts: Counts) -> None:
        """Reports a finished block."""
        self._documents += counts.documents
        self._tokens += counts.stream - counts.padding
        self._report(Event("rows", done=self._documents, figures={"tokens": self._tokens}))


@dataclasses.dataclass
class _Block:
    file: Path
    digest: str
    counts: Counts


class _Stratum:
    """One stratum's store while it is being made, in a folder below `BUILDING`."""

    def __init__(self, name: str, base: Path, recipe: Recipe, tokenizer: Tokenizer, shard_rows: int):
        self.name, self.place, self.folder = name, base / name, base / BUILDING / name
        self._recipe, self._tokenizer, self._shard_rows = recipe, tokenizer, shard_rows
        if recipe.packing == "concat" and recipe.kind not in ("text", "tokens"):
            what = f"stratum {name!r} has documents of kind {recipe.kind!r}, which must not be cut at the end of a row"
            raise UserError(what, where="rows.packing", fix="set it to best_fit")
        check_place(name, self.place, base)
        self._old = open_rows(self.place).header if (self.place / "header.json").exists() else None
        self._lines: list[bytes] = []
        self._bytes = self._number = 0
        self._blocks: list[_Block] = []
        self._header: RowHeader | None = None  # stays None where the store is there already

    def check_kind(self, kind: str) -> None:
        """Refuses a document whose kind is not that of the first document."""
        if kind != self._recipe.kind:
            what = f"stratum {self.name!r} has documents of the kinds {self._recipe.kind!r} and {kind!r}"
            raise UserError(what, where="data.sources", fix="make them two sources")

    def add(self, line: bytes, build: _Build) -> None:
        """Adds a document to its block, whose number follows from the bytes of the documents before it."""
        number = self._bytes // self._recipe.block_bytes
        if number != self._number:
            self.end_block(build)
            self._number = number
        self._lines.append(line)
        self._bytes += len(line)

    def end_block(self, build: _Build) -> None:
        """Has a block made of the lines since the last block, unless an earlier build has made it already."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        digest = block_digest(self._recipe, self._tokenizer, lines)
        block = _Block(self.folder / "blocks" / f"{len(self._blocks):06d}-{digest}.npz", digest, Counts(len(lines)))
        self._blocks.append(block)
        if self._old:  # a store that is there is only compared, and the digests are enough for that
            build.tell(block.counts)
        elif block.file.exists():
            block.counts = load_counts(block.file)
            build.tell(block.counts)
        else:
            with disk_errors(block.file):
                block.file.parent.mkdir(parents=True, exist_ok=True)
            build.ask({"do": "block", "kind": self._recipe.kind, "to": str(block.file)}, b"\n".join(lines), block)

    def check(self, too_small: TooSmallPolicy) -> None:
        """Makes the header, or compares the inputs with those of the store that is there already."""
        given = (self._recipe, self.name, self._tokenizer, self._shard_rows)
        inputs = digest_inputs(*given, (block.digest for block in self._blocks))
        if not self._old:
            self._header = make_header(*given, inputs, [block.counts for block in self._blocks])
            if too_small == "refuse":
                check_size(self._header)
        elif self._old.inputs_digest != inputs:
            documents = sum(block.counts.documents for block in self._blocks)
            refuse_other(self._old, self.place, self._recipe, self._tokenizer, self._shard_rows, documents, inputs)
        elif too_small == "refuse":
            check_size(self._old)

    def write_shards(self, build: _Build) -> None:
        """Has the rows and the documents table written, except for the shards that an earlier build has written."""
        header = self._header
        if not header:
            return
        self._store = self.folder / f"store-{header.inputs_digest}"
        with disk_errors(self._store):
            self._store.mkdir(exist_ok=True)
        documents = [block.counts.documents for block in self._blocks]
        before = [0, *itertools.accumulate(documents)]

        def ask(do: str, name: str, parts: list[Part], **more: Any) -> None:
            if not (self._store / name).exists():
                listed = [[str(self._blocks[p.block].file), p.start, p.stop, before[p.block]] for p in parts]
                build.ask({"do": do, "to": str(self._store / name), "parts": listed, **more})

        streams = [block.counts.stream for block in self._blocks]
        rows = shard_parts(streams, header.shard_rows * header.length, header.rows * header.length)
        for shard, parts in enumerate(rows):
            ask("rows", shard_name(shard), parts, columns=header.columns)
        for shard, parts in enumerate(shard_parts(documents, header.shard_documents, header.documents)):
            ask("documents", documents_name(shard), parts)

    def put_in_place(self) -> RowStore:
        """Completes the store and moves it to its place in one step, so that nobody sees a part of it."""
        if self._header:
            for part in self._store.glob(".*.part"):  # a worker that was killed has left it
                part.unlink()
            write_json(self._store / "header.json", self._header)
            with disk_errors(self.place):
                self.place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._store, self.place)
        shutil.rmtree(self.folder, ignore_errors=True)
        return open_rows(self.place)


@contextlib.contextmanager
def _lock(base: Path, report: Report) -> Iterator[IO[str]]:
    """Keeps other builds out of the root, and waits for another build that is there to end.

    The processes of a killed build hold the lock, too, until they end by themselves.
    """
    folder = base / BUILDING
    deadline = time.monotonic() + _LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(folder / ".lock", "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.exists(file.name) and os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
                    break  # the build that had the lock before has not removed the file
            except BlockingIOError:
                if time.monotonic() > deadline:
                    fix = "wait for it, stop it, or build into another folder"
                    raise UserError("another process builds rows here", where=str(base), fix=fix) from None
                report(Event("waiting for another build of rows to end"))
                time.sleep(0.1)
        try:
            yield file
        finally:
            if not any(path.is_file() for path in folder.rglob("*") if path.name != ".lock"):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise _Refused(error) from None
