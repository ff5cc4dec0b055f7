"""The verb about what is trained on: data."""

from __future__ import annotations

import dataclasses
from typing import Any

from alignpre_jax.cli.verb import JSON, SEED, STAGE, WORKDIR, Verb, workdir
from alignpre_jax.foundation import UserError, write_json


def _data(given: Any, question: str = "", *about: str) -> None:
    from alignpre_jax.mixture.inspection import batch_at, diff, show, where_document
    from alignpre_jax.rows import load_tokenizer
    from alignpre_jax.study import reopen_workspace, stage_plan

    takes = {"show": ("ARM",), "diff": ("ARM", "ARM"), "where": ("ARM", "DOCUMENT"), "batch": ("ARM", "STEP")}
    if question not in takes or len(about) != len(takes[question]):
        fix = " | ".join(f"alignpre data {name} {' '.join(names)}" for name, names in takes.items())
        raise UserError(f"cannot answer {' '.join((question, *about))!r}", where="alignpre data", fix=fix)
    space = reopen_workspace(workdir(given))
    config = space.config
    seed = config.seeds[0] if given.seed is None else given.seed

    def planned(arm: str) -> tuple[Any, Any, Any]:
        run = space.tree.run(arm, seed, given.stage)
        return *stage_plan(space, run), config.stages[run.stage]

    plan, stores, stage = planned(about[0])
    if question == "show":
        answer: Any = show(plan, stage.rows.length)
    elif question == "diff":
        answer = diff(plan, planned(about[1])[0], stage.rows.length, stage.batch_rows)
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
    "data": Verb(
        "what is trained on: show ARM, diff ARM ARM, where ARM DOCUMENT, batch ARM STEP",
        "alignpre data diff unfiltered aligned --workdir=runs/small_world",
        (WORKDIR, SEED, STAGE, JSON),
        _data,
        arguments="show|diff|where|batch ARM [ARM|DOCUMENT|STEP]",
        takes_config=False,
    ),
}
