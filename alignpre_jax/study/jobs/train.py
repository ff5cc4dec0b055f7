"""This job trains a run: it turns the study's config into what the training loop needs to know."""

from __future__ import annotations

import os
from typing import Any

import jax
from jax.sharding import Mesh

from alignpre_jax.checkpoints import own_template
from alignpre_jax.evals import Scenarios
from alignpre_jax.foundation import Report, write_bytes
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.sampling import Engine
from alignpre_jax.study.config import Eval
from alignpre_jax.study.graph import in_loop_evals
from alignpre_jax.study.jobs.evaluate import ask, during_training
from alignpre_jax.study.made import write_made
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.tree import StageRun
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import InLoopEvals, Run, StepConfig, first_says


def training_run(space: Workspace, run: StageRun) -> Run:
    """Gathers everything that the training loop needs to know about a run."""
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
        template=space.template(run.stage),
        start_from=os.fspath(parent),
        reference=os.fspath(space.run_dir(run.reference)) if run.reference else "",
        labels={"stage": run.stage, "seed": run.seed, "arms": list(run.arms)},
        evals=_in_loop(space, run),
    )


def _in_loop(space: Workspace, run: StageRun) -> tuple[InLoopEvals, ...]:
    """The evals that are put to the run's model while it trains, where the config asks for that."""

    def during(name: str, asked: Eval) -> InLoopEvals:
        headline = during_training(asked) if isinstance(asked, Scenarios) else asked

        def evaluate_step(step: int, params: Any, mesh: Mesh, report: Report) -> None:
            folder = space.in_loop_dir(run.name)
            place = folder / str(step) / f"{name}.jsonl"
            if first_says(place.exists()):
                return
            tokenizer, template = load_tokenizer(space.tokenizer), own_template(space.run_dir(run.name))
            several = mesh if mesh.size > 1 else None
            engine = Engine(params, space.config.model, tokenizer, mesh=several, template=template)
            lines = ask(space, engine, headline, f"{run.name}@{step}", report)
            if jax.process_index() == 0:
                write_made(folder / name, space.recipes.during(run, name))
                write_bytes(place, lines.encode())

        return InLoopEvals(evaluate_step, asked.every_steps, asked.every_tokens)

    names = in_loop_evals(space.config, run)
    return tuple(during(name, space.config.evals[name]) for name in names)
