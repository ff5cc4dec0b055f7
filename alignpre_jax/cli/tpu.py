"""Verbs about a machine that need not be there: plan."""

from __future__ import annotations

import collections
import os
from typing import Any

from alignpre_jax.cli.verb import JSON, Flag, Verb, study_config
from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.terminal import Terminal


def _plan(given: Any) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # compiling for TPUs that are only described takes no accelerator
    from alignpre_jax.planner import plan_work

    works = _stage_works(study_config(given), given.stage)
    with Terminal() as report:
        plan_work(works, given.topology, slices=given.slices, json=given.json, hlo=given.dump_hlo, report=report)


def _stage_works(config: Any, only: str) -> list[Any]:
    """What the planner needs to know about each stage that runs, in the order of training, or about one."""
    from alignpre_jax.planner import StageWork
    from alignpre_jax.study import stage_runs
    from alignpre_jax.training import StepConfig

    runs = collections.Counter(run.stage for run in stage_runs(config).values())
    if only and only not in runs:
        raise UserError(f"no arm goes through a stage {only!r}", where="--stage", fix=suggest(only, runs))
    works = []
    for name in [only] if only else runs:
        stage = config.stages[name]
        step = StepConfig(
            model=config.model,
            objective=stage.objective,
            optimizer=config.optimizer,
            schedule=stage.schedule,
            steps=stage.steps,
            sources=len(config.data.strata()),
        )
        shape = {"batch_rows": stage.batch_rows, "row_length": stage.row_length, "tokens": stage.tokens}
        works.append(StageWork(name=name, step=step, mesh=config.training.mesh, runs=runs[name], **shape))
    return works


VERBS = {
    "plan": Verb(
        "compiles a stage's train step for a TPU topology, without a TPU: memory, time",
        "alignpre plan --config=configs/studies/paper_6p9b.py --topology=v5e:16x16",
        (
            Flag("topology", "v5e:2x4", "TPU chip and shape, or the type of a slice such as v5litepod-16"),
            Flag("slices", 1, "slices joined by DCN", lower=1),
            Flag("stage", "", "only this stage"),
            JSON,
            Flag("dump_hlo", "", "write the compiled program here"),
        ),
        _plan,
    ),
}
