"""From a study's inputs to its rows: documents, held-out text, tokenizer, row stores, ledgers."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from etils import epath

from alignpre_jax.documents import Document, Quarantine, assign_strata, deduplicate, read_inputs
from alignpre_jax.documents.classifier import Detector
from alignpre_jax.documents.duplicates import remove_duplicates
from alignpre_jax.documents.persona import swap_persona
from alignpre_jax.foundation import (
    Event,
    Report,
    UserError,
    canonical_json,
    digest,
    disk_errors,
    exact,
    to_mapping,
    write_bytes,
    write_json,
)
from alignpre_jax.rows import build_rows, check_rows_url, load_tokenizer, publish_rows, train_bpe
from alignpre_jax.study.graph import stage_runs
from alignpre_jax.study.overlap import measure, overlap_path
from alignpre_jax.study.plans import ledger_table, stage_ledger
from alignpre_jax.study.workspace import Workspace, read_documents

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
    ledgers = {run.name: stage_ledger(space, run) for run in stage_runs(space.config).values()}
    if space.config.data.overlap:
        write_json(overlap_path(space), measure(space, ledgers, report))
    write_json(ledger_path(space), {name: counted.to_json() for name, counted in ledgers.items()})
    title = f"tokens to be trained on, seed {space.config.seeds[0]}"
    report(Event("ledger", note=f"{title}:\n{ledger_table(space, ledgers)}"))


def is_prepared(space: Workspace) -> bool:
    """Whether the data is there, and every run of this study planned."""
    return (space.data / DONE).exists() and ledger_path(space).exists()


def ledger_path(space: Workspace) -> epath.Path:
    """The study's own, also where its data is shared with another: that one has other arms."""
    return space.root / "data" / "ledger.json"


def _prepare_data(space: Workspace, report: Report) -> dict[str, Any]:
    """All but the ledgers."""
    config = space.config
    if config.data.rows_url:
        check_rows_url(config.data.rows_url)
    # Personas last: they are made of another source's documents.
    sources = sorted(config.data.sources, key=lambda name: bool(config.data.sources[name].persona_of))
    counts = {name: _write_documents(space, name, report) for name in sources}
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
            documents = read_documents(space.documents(name))
            stores = build_rows(documents, tokenizer, length, space.rows(length), told, packing=config.data.packing)
            for stratum, store in stores.items():
                if config.data.rows_url:
                    publish_rows(store, space.rows_read(length, stratum), report)
    return {"documents": counts, "tokenizer": tokenizer.digest}


def _retell(report: Report, task: str, total: int, event: Event) -> None:
    """Passes progress on under the name and with the total that this room knows."""
    report(Event(task, event.done, total, event.figures))


def held_out_documents(space: Workspace) -> list[Document]:
    """The beginnings of background documents that no row contains; the alignment tax is measured on them."""
    data = space.config.data
    documents = itertools.islice(read_documents(space.data / HELD_OUT), data.held_out_documents)
    return [
        dataclasses.replace(document, body=document.text[: data.held_out_characters], spans=())
        for document in documents
    ]


def _write_documents(space: Workspace, name: str, report: Report) -> int:
    """Reads, stratifies and deduplicates one source; returns the number of its documents."""
    data = space.config.data
    source = data.sources[name]
    if source.persona_of:
        return _write_persona(space, name, report)
    quarantine = Quarantine(max_share=data.max_bad_share)
    task = f"documents: {name}"
    documents = read_inputs(
        source.inputs,
        name,
        data.world,
        quarantine,
        report,
        max_bytes=source.max_bytes,
        keys=source.keys,
        max_record_bytes=source.max_record_bytes,
    )
    documents = deduplicate(documents)
    if source.strata == "discourse":
        documents = assign_strata(documents, name, Detector(data.detector))
    background = name == data.background
    share = exact(data.held_out_share) if background else Fraction(0)
    try:
        with _distinct(space, name, documents, report) as distinct:
            count, held_out = _split(distinct, space.documents(name), share)
    finally:
        if quarantine.bad:
            place = space.data / "quarantine" / f"{name}.jsonl"
            quarantine.write(place)
            report(Event(task, note=f"{name}: {quarantine.bad:,} records left out, see {place}"))
    if background:
        write_bytes(space.data / HELD_OUT, "".join(held_out).encode())
    report(Event(task, count, count, note=f"{name}: {count:,} documents"))
    return count


@contextlib.contextmanager
def _distinct(
    space: Workspace, name: str, documents: Iterator[Document], report: Report
) -> Iterator[Iterator[Document]]:
    """The documents without near duplicates, if the study wants that: they are read twice, from a file of their own."""
    data = space.config.data
    if data.duplicates == "exact":
        yield documents
        return
    every = space.data / "documents" / f"{name}.all.jsonl"
    _split(documents, every)
    survivors, found = remove_duplicates(lambda: read_documents(every), data.near, report)
    write_json(space.data / "duplicates" / f"{name}.json", to_mapping(found))
    note = f"{name}: {found.near:,} of {found.documents:,} documents left out as near duplicates"
    report(Event(f"documents: {name}", note=note))
    yield survivors
    every.unlink()


def _write_persona(space: Workspace, name: str, report: Report) -> int:
    """Writes the documents of another source with the terms for AI replaced; returns their number."""
    source, task = space.config.data.sources[name], f"documents: {name}"
    counts: collections.Counter[str] = collections.Counter()

    def swapped() -> Iterator[Document]:
        for document in read_documents(space.documents(source.persona_of)):
            swap = swap_persona(document, source.persona)
            counts["swaps"] += int(swap.labels["persona_swaps"])
            counts["taken"] += "persona_taken" in swap.labels
            yield dataclasses.replace(swap, source=name, stratum=name)

    count, _ = _split(swapped(), space.documents(name))
    if counts["taken"]:
        what = f"{counts['taken']:,} documents of {source.persona_of!r} contain {source.persona.singular!r} already"
        raise UserError(what, where=f"data.sources.{name}.persona", fix="choose another word")
    note = f"{name}: {count:,} documents of {source.persona_of}, {counts['swaps']:,} terms replaced"
    report(Event(task, count, count, note=note))
    return count


def _split(documents: Iterator[Document], path: epath.Path, share: Fraction = Fraction(0)) -> tuple[int, list[str]]:
    """Writes documents as JSON lines, but for a share of those that are not AI discourse, chosen by a hash of the id.

    Returns:
      The number of documents written, and the lines that were held out.
    """
    count, held_out = 0, []
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for document in documents:
                line = canonical_json(document.to_json()) + "\n"
                if not document.stratum.endswith("/ai") and int(digest(document.id), 16) < share * 2**64:
                    held_out.append(line)
                    continue
                file.write(line)
                count += 1
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
        write_bytes(space.tokenizer, load_tokenizer(data.tokenizer).data)
    elif not space.tokenizer.exists():
        report(Event(f"tokenizer: {vocab:,} entries"))
        texts = (document.text for document in read_documents(space.documents(data.background)))
        train_bpe(texts, vocab, space.tokenizer)
