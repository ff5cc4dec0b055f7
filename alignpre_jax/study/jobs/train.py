"""The job that trains a run: from the study's config to what the training loop needs to know."""

from __future__ import annotations

import os
from typing import Any

import jax
from jax.sharding import Mesh

from alignpre_jax.evals import Scenarios
from alignpre_jax.foundation import Report, silent, write_bytes
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.sampling import Engine
from alignpre_jax.study.jobs.evaluate import ask, during_training
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.tree import StageRun
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import InLoopEvals, Run, StepConfig


def training_run(space: Workspace, run: StageRun, report: Report = silent) -> Run:
    """All that the training loop needs to know about a run."""
    config, stage = space.config, space.config.stages[run.stage]
    plan, stores = stage_plan(space, run)
    parent = space.run_dir(run.parent) if run.parent else space.imported if config.init_from else ""
    return Run(
        name=f"train {run.name}",
        run_dir=space.run_dir(run.name),
        step=StepConfig(
            model=config.model,
            objective=stage.objective,
            optimizer=stage.optimizer,
            schedule=stage.schedule,
            steps=plan.slots // stage.batch_rows,
            sources=len(plan.stores),
            learn=stage.learn,
        ),
        loop=config.loop,
        plan=plan,
        stores=stores,
        batch_rows=stage.batch_rows,
        seed=run.seed,
        tokenizer=space.tokenizer,
        template=space.template(stage.rows),
        start_from=os.fspath(parent),
        reference=os.fspath(space.run_dir(run.reference)) if run.reference else "",
        labels={"stage": run.stage, "seed": run.seed, "arms": list(run.arms)},
        evals=_in_loop(space, run, report),
    )


def _in_loop(space: Workspace, run: StageRun, report: Report) -> InLoopEvals | None:
    """The evals on the model of a step, where the config asks for them."""
    config = space.config
    names = [
        name for name, asked in config.evals.items() if asked.is_in_loop and (not asked.at or run.stage in asked.at)
    ]
    if not names:
        return None

    def evaluate_step(step: int, params: Any, mesh: Mesh, due: tuple[str, ...]) -> None:
        folder = space.in_loop_dir(run.name) / str(step)
        missing = [name for name in due if not (folder / f"{name}.jsonl").exists()]
        if not missing:
            return
        template = space.template(config.stages[run.stage].rows)
        tokenizer = load_tokenizer(space.tokenizer)
        engine = Engine(params, config.model, tokenizer, template, mesh=mesh if mesh.size > 1 else None)
        for name in missing:
            asked = config.evals[name]
            if isinstance(asked, Scenarios):
                asked = during_training(asked)
            lines = ask(space, engine, asked, f"{run.name}@{step}", report)
            if jax.process_index() == 0:
                write_bytes(folder / f"{name}.jsonl", lines.encode())

    every = {name: (config.evals[name].every_steps, config.evals[name].every_tokens) for name in names}
    return InLoopEvals(evaluate_step, every)
