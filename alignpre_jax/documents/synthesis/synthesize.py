"""Synthesis goes from situations to documents: it plans, asks, checks, keeps and reports."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import alignpre_jax
from alignpre_jax.documents.synthesis.checks import Checks
from alignpre_jax.documents.synthesis.config import SynthesisConfig
from alignpre_jax.documents.synthesis.generator import Brief, Generator, Situation
from alignpre_jax.documents.synthesis.output import write_documents
from alignpre_jax.documents.synthesis.prompts import Prompts
from alignpre_jax.documents.synthesis.report import SynthesisReport
from alignpre_jax.documents.synthesis.signals import StopRequested
from alignpre_jax.documents.synthesis.work import Desk, Queue
from alignpre_jax.documents.world import STANCES
from alignpre_jax.endpoints.cache import Cache
from alignpre_jax.foundation import (
    Event,
    Interrupted,
    PathLike,
    Report,
    UserError,
    digest,
    silent,
    to_mapping,
    write_json,
)

CACHE, DOCUMENTS, REPORT = "completions.cache", "documents", "report.json"

_TASK = "synthesize"
_STOPPING = "stopping when the answers under way are in; Ctrl-C again stops at once"
_DEARER = "the next call could exceed it; the same command with a higher limit goes on"


def synthesize(
    situations: Sequence[Situation],
    config: SynthesisConfig,
    generator: Generator,
    folder: PathLike,
    report: Report = silent,
    *,
    guarded: Sequence[str] = (),
) -> SynthesisReport:
    """Makes the documents of every situation, form, stance and variation, or goes on with them.

    Which documents come out depends on the arguments and the completions alone, not on the order in which these came:
    each document is found by going through its calls in the cache. Writes into `folder`
      documents/STANCE.jsonl: {"id", "text", "score", "labels": {form, stance, topic, situation, generator}}, in the
        order of the plan; such a file, or the folder with both, is an input of a source;
      report.json: the report;
      completions.cache: all completions, so that none is made or paid for twice, whatever ends a run.

    Args:
      situations: what the documents are about. Those of a held-out split do not belong here.
      config: forms, stances, numbers, checks, prices.
      generator: writes the texts.
      folder: a folder on a local disk; it is made if missing.
      report: is told how many documents are done, and what they have cost.
      guarded: further texts that no document may quote, such as the options of held-out scenarios.

    Raises:
      UserError: there is no situation, two have one id, the folder is in use, or the generator cannot do its part.
      Interrupted: Ctrl-C or SIGTERM came. The answers under way were waited for; a second signal does not wait.
    """
    start, place = time.monotonic(), _local(folder)
    briefs = plan(situations, config)
    prompts = Prompts(config)
    options = [*guarded, *(text for situation in situations for text in situation.guarded)]
    with Cache(place / CACHE) as cache, StopRequested() as stop:
        desk = Desk(config, generator, prompts, Checks(config, options), cache)
        queue, before = Queue(desk, briefs, stop), len(cache)
        for answers in _answers(queue, generator, stop):
            note = _STOPPING if stop.asked and answers == 1 else ""
            figures = {"calls": len(cache), **({"dollars": float(cache.cost / 10**6)} if cache.cost else {})}
            report(Event(_TASK, queue.finished, len(briefs), figures, note))
        if stop.asked:
            raise Interrupted("synthesis was stopped; what was answered is kept")
        tally = write_documents(place / DOCUMENTS, desk, briefs, report)
        reproduce = {
            "config": to_mapping(config),
            "generator": {"name": generator.name, "roles": generator.roles, **generator.settings},
            "prompts": prompts.digest,
            "situations": {"count": len(situations), "digest": digest(to_mapping(tuple(situations)))},
            "guarded": {"count": len(guarded), "digest": digest(list(guarded))},
            "documents_sha256": tally.sha256,
            "version": alignpre_jax.__version__,
        }
        made = SynthesisReport(
            wanted=len(briefs),
            documents=sum(tally.documents.values()),
            by_form={form: {s: tally.documents[form, s] for s in config.stances} for form in config.forms},
            words={stance: tally.words[stance] for stance in config.stances},
            refused=dict(sorted(collections.Counter(tally.refused.values()).items())),
            given_up=dict(sorted(tally.given_up.items())),
            duplicates={kind: tally.duplicates[kind] for kind in ("exact", "near")},
            unfinished=tally.unfinished,
            **{name: cache.counts[name] for name in ("calls", "bounded_calls", "prompt_tokens", "completion_tokens")},
            unanswered=getattr(generator, "unanswered", 0),
            cost_microdollars=math.ceil(cache.cost),
            calls_now=len(cache) - before,
            seconds=round(time.monotonic() - start, 3),
            stopped=f"stopped before max_cost, ${config.max_cost:,.2f}: {_DEARER}" if queue.out_of_money else "",
            reproduce=reproduce,
        )
        write_json(place / REPORT, to_mapping(made))
    report(Event(_TASK, len(briefs) - made.unfinished, len(briefs), note=made.stopped))
    return made


def plan(situations: Sequence[Situation], config: SynthesisConfig) -> list[Brief]:
    """Lists the documents to be made, in order: situations, forms, variations, stances.

    Raises:
      UserError: there is no situation, or two have one id.
    """
    if not situations:
        raise UserError("no situation to write about", where="situations", fix="give at least one")
    counts = collections.Counter(situation.id for situation in situations)
    twice = [id for id, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"the id {twice[0]!r} comes twice", where="situations", fix="give every situation its own id")
    return [
        Brief(situation, form, stance, variation)
        for situation in situations
        for form in config.forms
        for variation in range(config.variations)
        for stance in STANCES
        if stance in config.stances
    ]


def _answers(queue: Queue, generator: Generator, stop: StopRequested) -> Iterator[int]:
    """Has the queue's requests answered; yields after each answer how many have come since a stop was asked for."""
    sent, late = -1, 0
    while sent != queue.sent:  # a generator may end although its last answers have brought new requests
        sent = queue.sent
        for request, completion in generator.generate(queue):
            queue.take(request, completion)
            late += stop.asked
            yield late


def _local(folder: PathLike) -> Path:
    if "://" in str(folder):
        what, fix = "completions are appended to a file, which an object store has none of", "give a local folder"
        raise UserError(what, where=str(folder), fix=f"{fix}, and copy {DOCUMENTS}/ afterwards")
    return Path(folder)
