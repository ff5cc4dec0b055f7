"""Verbs about text and plans: audit, data."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

from alignpre_jax.cli.verb import JSON, SEED, WORKDIR, WORKERS, Flag, Verb, workdir
from alignpre_jax.foundation import UserError, suggest, write_json
from alignpre_jax.terminal import Terminal


def _audit(given: Any, *inputs: str) -> None:
    from rich.console import Console

    from alignpre_jax.documents.audit import audit, terminal_audit, write_audit

    command = shlex.join(["alignpre", *sys.argv[1:]])
    with Terminal() as report:
        found = audit(
            inputs,
            sample=given.sample,
            evidence=given.evidence,
            workers=given.workers,
            max_bad_share=given.max_bad_share,
            command=command,
            report=report,
        )
    Console(highlight=False).print(terminal_audit(found))
    print(f"\naudit: {write_audit(found, given.to)}")


def _data(given: Any, question: str = "", *about: str) -> None:
    from alignpre_jax.mixture.inspection import batch_at, diff, show, where_document
    from alignpre_jax.rows import load_tokenizer
    from alignpre_jax.study import final_run, reopen_workspace, run_path, stage_plan, stage_runs

    takes = {"show": ("ARM",), "diff": ("ARM", "ARM"), "where": ("ARM", "DOCUMENT"), "batch": ("ARM", "STEP")}
    if question not in takes or len(about) != len(takes[question]):
        fix = " | ".join(f"alignpre data {name} {' '.join(names)}" for name, names in takes.items())
        raise UserError(f"cannot answer {' '.join((question, *about))!r}", where="alignpre data", fix=fix)
    space = reopen_workspace(workdir(given))
    config, runs = space.config, stage_runs(space.config)
    seed = config.seeds[0] if given.seed is None else given.seed

    def planned(arm: str) -> tuple[Any, Any, Any]:
        path = {run.stage: run for run in run_path(runs, final_run(config, runs, arm, seed))}
        name = given.stage or list(path)[-1]
        if name not in path:
            raise UserError(f"arm {arm!r} has no stage {name!r}", where="--stage", fix=suggest(name, path))
        return *stage_plan(space, path[name]), config.stages[name]

    plan, stores, stage = planned(about[0])
    if question == "show":
        answer: Any = show(plan, stage.row_length)
    elif question == "diff":
        answer = diff(plan, planned(about[1])[0], stage.row_length, stage.batch_rows)
    elif question == "where":
        answer = where_document(plan, stores, about[1], stage.batch_rows)
    else:
        if not about[1].isdigit():
            raise UserError(f"{about[1]!r} is no step", where="alignpre data batch", fix="give a whole number")
        answer = batch_at(plan, stores, int(about[1]), stage.batch_rows, load_tokenizer(space.tokenizer))
    print(answer)
    if given.json:
        write_json(given.json, dataclasses.asdict(answer))


VERBS = {
    "audit": Verb(
        "says what a corpus says about AI: a table, audit.json and audit.html",
        "alignpre audit web=my/corpus.jsonl.gz docs=my/docs --to=runs/audit",
        (
            Flag("to", "audit", "folder for audit.json and audit.html"),
            Flag("sample", 0, "documents of each source to look at, chosen at random; 0: all", lower=0),
            Flag("evidence", "", ".jsonl, .jsonl.gz or .jsonl.zst file for what was found"),
            Flag("max_bad_share", 1.0, "stop when more of the records cannot be read", lower=0.0, upper=1.0),
            WORKERS,
        ),
        _audit,
        arguments="[NAME=]PATH...",
        takes_config=False,
    ),
    "data": Verb(
        "what is trained on: show ARM, diff ARM ARM, where ARM DOCUMENT, batch ARM STEP",
        "alignpre data diff unfiltered aligned --workdir=runs/small_world",
        (WORKDIR, SEED, Flag("stage", "", "which stage; the last by default"), JSON),
        _data,
        arguments="show|diff|where|batch ARM [ARM|DOCUMENT|STEP]",
        takes_config=False,
    ),
}
