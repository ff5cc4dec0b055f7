"""From a study's inputs to its rows: documents, held-out text, tokenizer, row stores, ledgers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from etils import epath

from alignpre_jax.documents import Document, Quarantine, assign_strata, deduplicate, read_inputs
from alignpre_jax.foundation import (
    Event,
    PathLike,
    Report,
    UserError,
    canonical_json,
    digest,
    disk_errors,
    exact,
    read_jsonl,
    write_bytes,
    write_json,
)
from alignpre_jax.rows import build_rows, load_tokenizer, train_bpe
from alignpre_jax.study.graph import stage_runs
from alignpre_jax.study.plans import stage_ledger
from alignpre_jax.study.workspace import Workspace

DONE = "done.json"
HELD_OUT = "held_out.jsonl"


def prepare(space: Workspace, report: Report) -> None:
    """Makes everything below WORKDIR/data; what is whole already is kept.

    Raises:
      UserError: an input is missing or empty, or a plan asks for more than there is. Every stage of every
        arm is planned here, so such a mistake shows before anything is trained.
    """
    if not (space.data / DONE).exists():
        write_json(space.data / DONE, _prepare_data(space, report))
    ledgers = {run.name: stage_ledger(space, run).to_json() for run in stage_runs(space.config).values()}
    write_json(ledger_path(space), ledgers)


def is_prepared(space: Workspace) -> bool:
    """Whether the data is there, and every run of this study planned."""
    return (space.data / DONE).exists() and ledger_path(space).exists()


def ledger_path(space: Workspace) -> epath.Path:
    """The study's own, also where its data is shared with another: that one has other arms."""
    return space.root / "data" / "ledger.json"


def _prepare_data(space: Workspace, report: Report) -> dict[str, Any]:
    """All but the ledgers."""
    config = space.config
    counts = {name: _write_documents(space, name, report) for name in config.data.sources}
    _make_tokenizer(space, report)
    tokenizer = load_tokenizer(space.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} entries, the model {config.model.vocab_size}",
            where="model.vocab_size",
            fix=f"set it to at least {tokenizer.vocab_size}",
        )
    for length in sorted({stage.row_length for stage in config.stages.values()}):
        for name in config.data.sources:
            task = f"rows of {length} tokens: {name}"
            told = functools.partial(_retell, report, task, counts[name])
            build_rows(read_documents(_documents(space, name)), tokenizer, length, space.rows(length), told)
    return {"documents": counts, "tokenizer": tokenizer.digest}


def _retell(report: Report, task: str, total: int, event: Event) -> None:
    """Passes progress on under the name and with the total that this room knows."""
    report(Event(task, event.done, total, event.figures))


def read_documents(path: PathLike) -> Iterator[Document]:
    """The documents of a file that `prepare` wrote."""
    return (Document(**row) for row in read_jsonl(path))


def held_out_documents(space: Workspace) -> list[Document]:
    """The beginnings of background documents that no row contains; the alignment tax is measured on them."""
    data = space.config.data
    documents = itertools.islice(read_documents(space.data / HELD_OUT), data.held_out_documents)
    return [dataclasses.replace(document, text=document.text[: data.held_out_characters]) for document in documents]


def _documents(space: Workspace, source: str) -> epath.Path:
    return space.data / "documents" / f"{source}.jsonl"


def _write_documents(space: Workspace, name: str, report: Report) -> int:
    """Reads, deduplicates and stratifies one source; returns the number of its documents."""
    data = space.config.data
    source = data.sources[name]
    quarantine = Quarantine(max_share=data.max_bad_share)
    task = f"documents: {name}"
    report(Event(task))
    documents = read_inputs(source.inputs, name, data.world, quarantine, max_bytes=source.max_bytes)
    documents = deduplicate(documents)
    if source.strata == "discourse":
        documents = assign_strata(documents, name)
    background = name == data.background
    share = exact(data.held_out_share) if background else exact(0)
    try:
        count, held_out = _split(documents, _documents(space, name), share, lambda n: report(Event(task, n)))
    finally:
        if quarantine.bad:
            place = space.data / "quarantine" / f"{name}.jsonl"
            quarantine.write(place)
            report(Event(task, note=f"{name}: {quarantine.bad:,} records left out, see {place}"))
    if background:
        write_bytes(space.data / HELD_OUT, "".join(held_out).encode())
    report(Event(task, count, count, note=f"{name}: {count:,} documents"))
    return count


def _split(
    documents: Iterator[Document], path: epath.Path, share: Fraction, report: Callable[[int], None]
) -> tuple[int, list[str]]:
    """Writes documents as JSON lines, but for a share of those that are not AI discourse, chosen by a hash of the id.

    Returns:
      The number of documents written, and the lines that were held out.
    """
    count, held_out = 0, []
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for document in documents:
                line = canonical_json(document) + "\n"
                if not document.stratum.endswith("/ai") and int(digest(document.id), 16) < share * 2**64:
                    held_out.append(line)
                    continue
                file.write(line)
                count += 1
                if count % 500 == 0:
                    report(count)
    return count, held_out


def _make_tokenizer(space: Workspace, report: Report) -> None:
    data, vocab = space.config.data, space.config.model.vocab_size
    if space.config.init_from:
        made = load_tokenizer(space.imported / "tokenizer.json")
        if data.tokenizer and load_tokenizer(data.tokenizer).digest != made.digest:
            raise UserError(
                f"{data.tokenizer} is not the tokenizer of {space.config.init_from}",
                where="data.tokenizer and init_from",
                fix="leave data.tokenizer empty: the model's own is taken",
            )
        write_bytes(space.tokenizer, made.data)
    elif data.tokenizer:
        path = epath.Path(data.tokenizer)
        if not path.exists():
            raise UserError(
                f"no file {data.tokenizer}", where="data.tokenizer", fix="give the path of a tokenizer.json"
            )
        write_bytes(space.tokenizer, path.read_bytes())
    elif not space.tokenizer.exists():
        report(Event(f"tokenizer: {vocab:,} entries"))
        texts = (document.text for document in read_documents(_documents(space, data.background)))
        train_bpe(texts, vocab, space.tokenizer)
