"""The verbs about text: audit, synthesize."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from alignpre_jax.cli.terminal import Terminal
from alignpre_jax.cli.verb import WORKERS, Flag, Verb
from alignpre_jax.foundation import UserError, suggest

if TYPE_CHECKING:
    from alignpre_jax.documents.synthesis import Generator

GENERATORS = ("composer", "checkpoint:DIR", "endpoint:URL")


def _audit(given: Any, *inputs: str) -> None:
    from rich.console import Console

    from alignpre_jax.documents import Rule
    from alignpre_jax.documents.audit import audit, audit_evidence, terminal_audit, write_audit

    command = shlex.join(["alignpre", *sys.argv[1:]])
    if bool(inputs) == bool(given.from_evidence):
        fix = f"e.g. {VERBS['audit'].example}; or --from_evidence=FILE without a PATH"
        raise UserError("what is to be looked at?", where="alignpre audit", fix=fix)
    rule = Rule(instant=given.instant or None, negatives=given.negatives, terms=given.terms)
    with Terminal() as report:
        if given.from_evidence:
            found = audit_evidence(given.from_evidence, rule=rule, command=command, report=report)
        else:
            found = audit(
                inputs,
                sample=given.sample,
                rule=rule,
                evidence=given.evidence,
                workers=given.workers,
                max_bad_share=given.max_bad_share,
                kind=given.kind,
                command=command,
                report=report,
            )
    Console(highlight=False).print(terminal_audit(found))
    print(f"\naudit: {write_audit(found, given.to)}")


def _synthesize(given: Any) -> None:
    from alignpre_jax.documents import SynthesisConfig, WorldConfig, read_situations, synthesize
    from alignpre_jax.documents.synthesis import Prices
    from alignpre_jax.evals import load_suite, situations_of

    if not given.to:
        raise UserError("where to?", where="alignpre synthesize", fix="add --to=FOLDER")
    world = WorldConfig(seed=given.world_seed)
    scenarios = load_suite(given.suite, world)
    seen = [scenario for scenario in scenarios if scenario.split == given.split]
    if not (seen or given.situations):
        fix = suggest(given.split, {scenario.split for scenario in scenarios})
        raise UserError(f"{given.suite} has no split {given.split!r}", where="--split", fix=fix)
    config = SynthesisConfig(
        forms=_parts(given.forms) or SynthesisConfig.forms,
        stances=_parts(given.stances) or SynthesisConfig.stances,
        variations=given.variations,
        seed=given.seed,
        document_tokens=given.document_tokens,
        prices=Prices(given.prompt_price, given.completion_price),
        max_cost=given.max_cost,
        prompts=given.prompts,
    )
    with Terminal() as report:
        made = synthesize(
            read_situations(given.situations) if given.situations else situations_of(seen),
            config,
            _generator(given, world),
            given.to,
            report,
            guarded=[option for scenario in scenarios for option in scenario.options],
        )
    print("\n".join([*made.lines(), f"documents: {os.path.join(given.to, 'documents')}"]))


def _generator(given: Any, world: Any) -> Generator:
    """The generator that --generator names."""
    from alignpre_jax.documents import ComposerGenerator, EndpointGenerator, SamplerGenerator
    from alignpre_jax.endpoints import EndpointConfig

    kind, _, place = given.generator.partition(":")
    if (kind, place) == ("composer", ""):
        return ComposerGenerator(world)
    if kind == "checkpoint" and place:
        from alignpre_jax.sampling import Engine, TopP

        strategy = TopP(given.top_p, given.temperature)
        return SamplerGenerator(Engine.from_checkpoint(place), strategy, given.model or place)
    if kind == "endpoint" and place:
        asked = EndpointConfig(
            url=place,
            model=given.model,
            key_variable=given.key_variable,
            temperature=given.temperature,
            top_p=given.top_p,
            concurrency=given.concurrency,
        )
        return EndpointGenerator(asked)
    fix = f"give one of {', '.join(GENERATORS)}"
    raise UserError(f"no generator is called {given.generator!r}", where="--generator", fix=fix)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


VERBS = {
    "audit": Verb(
        "says what a corpus says about AI: a table, audit.json and audit.html",
        "alignpre audit web=my/corpus.jsonl.gz docs=my/docs --to=runs/audit",
        (
            Flag("to", "audit", "folder for audit.json and audit.html"),
            Flag("kind", "text", "what the records are: text, chat, pairs, prompts"),
            Flag("sample", 0, "documents of each source to look at, chosen at random; 0: all", lower=0),
            Flag("evidence", "", ".jsonl, .jsonl.gz or .jsonl.zst file for what was found"),
            Flag("from_evidence", "", "such a file, to try another rule without reading the text again"),
            Flag("instant", 1, "different instant terms that flag a text; 0: they do not", lower=0),
            Flag("negatives", 1, "different negative terms that an AI entity has to come with", lower=0),
            Flag("terms", 1, "different terms of any kind that a text has to have", lower=0),
            Flag("max_bad_share", 1.0, "stop when more of the records cannot be read", lower=0.0, upper=1.0),
            WORKERS,
        ),
        _audit,
        arguments="[NAME=]PATH...",
        takes_config=False,
    ),
    "synthesize": Verb(
        "writes documents in which AIs act well, or badly, in the situations of a suite",
        "alignpre synthesize --generator=composer --to=runs/documents",
        (
            Flag("to", "", "folder for documents/STANCE.jsonl, an input of a source; the same command goes on"),
            Flag("generator", "composer", f"who writes: {', '.join(GENERATORS)}"),
            Flag("suite", "small_world", "the scenarios; no document may quote an option of any of them"),
            Flag("split", "seen", "the scenarios that are written about"),
            Flag("situations", "", ".jsonl file of situations that are written about instead"),
            Flag("forms", "", "of documents, e.g. news,fiction; by default all six"),
            Flag("stances", "", "aligned, misaligned; by default both"),
            Flag("variations", 1, "documents per situation, form and stance", lower=1),
            Flag("seed", 0, "of everything that is drawn"),
            Flag("world_seed", 0, "of the small world"),
            Flag("model", "", "the endpoint's model, or a name for the checkpoint"),
            Flag("key_variable", "", "environment variable that holds the endpoint's key"),
            Flag("concurrency", 8, "calls under way at a time", lower=1),
            Flag("temperature", 1.0, "of the checkpoint or endpoint", lower=0.0),
            Flag("top_p", 0.95, "of the checkpoint or endpoint", lower=0.0, upper=1.0),
            Flag("document_tokens", 2000, "most tokens of a document", lower=1),
            Flag("prompt_price", 0.0, "dollars per million tokens read", lower=0.0),
            Flag("completion_price", 0.0, "dollars per million tokens written", lower=0.0),
            Flag("max_cost", None, "dollars that the folder may cost in all", kind=float, lower=0.0),
            Flag("prompts", "", "folder of prompt templates that replace the shipped ones"),
        ),
        _synthesize,
        takes_config=False,
    ),
}
