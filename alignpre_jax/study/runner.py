"""Does one job of a study: prepare the data, train a stage, or evaluate a checkpoint."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
from jax.sharding import Mesh

from alignpre_jax.checkpoints import import_model_run, own_template
from alignpre_jax.evals import load_suite, result_lines, run_suite, score_texts
from alignpre_jax.evals.capabilities import solve
from alignpre_jax.evals.formats.tasks import read_task
from alignpre_jax.foundation import PathLike, Report, canonical_json, write_bytes
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.sampling import Engine
from alignpre_jax.study.graph import Job, StageRun, stage_runs
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.prepare import held_out_documents, is_prepared, prepare
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import InLoopEvals, Run, StepConfig, train, train_seeds
from alignpre_jax.training import is_done as is_trained

RESULTS = "results.jsonl"
TAX = "tax.jsonl"
SOLUTIONS = "capabilities.jsonl"
STEPS = "steps"  # results during training: STEPS/STEP/results.jsonl


def is_done(space: Workspace, job: Job) -> bool:
    """Whether the job's outputs are there, whole."""
    match job.kind:
        case "import":
            return is_trained(space.imported)
        case "prepare":
            return is_prepared(space)
        case "train":
            return all(is_trained(space.run_dir(run)) for run in job.runs)
        case "eval":
            return (space.eval_dir(job.run) / TAX).exists()
    raise AssertionError(job.kind)


def run_job(space: Workspace, job: Job, report: Report) -> None:
    """Runs a job to its end; one that was interrupted goes on from what it had saved."""
    if job.kind == "import":
        import_model_run(space.config.init_from, space.imported, model=space.config.model, report=report)
        return
    if job.kind == "prepare":
        prepare(space, report)
        return
    runs = stage_runs(space.config)
    if job.kind == "eval":
        evaluate(space, runs[job.run], report)
    elif job.others:
        train_seeds([training_run(space, runs[run]) for run in job.runs], report)
    else:
        train(training_run(space, runs[job.run]), report)


def training_run(space: Workspace, run: StageRun) -> Run:
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
            optimizer=config.optimizer,
            schedule=stage.schedule,
            steps=stage.steps,
            sources=len(plan.stores),
        ),
        loop=config.training,
        plan=plan,
        stores=stores,
        batch_rows=stage.batch_rows,
        seed=run.seed,
        tokenizer=space.tokenizer,
        start_from=os.fspath(parent),
        labels={"stage": run.stage, "seed": run.seed, "arms": list(run.arms)},
        evals=_in_loop(space, run),
    )


def _in_loop(space: Workspace, run: StageRun) -> InLoopEvals | None:
    """The headline eval on the model of a step, where the config asks for it."""
    config = space.config
    evals = config.evals
    if not (evals.every_steps or evals.every_tokens):
        return None
    headline = dataclasses.replace(evals, scorings=(evals.headline,), systems=evals.systems[:1])

    def evaluate_step(step: int, params: Any, mesh: Mesh, report: Report) -> None:
        place = space.eval_dir(run.name) / STEPS / str(step) / RESULTS
        if place.exists():
            return
        tokenizer, template = load_tokenizer(space.tokenizer), own_template(space.run_dir(run.name))
        several = mesh if mesh.size > 1 else None
        engine = Engine(params, config.model, tokenizer, mesh=several, template=template)
        scenarios = load_suite(evals.suite, config.data.world)
        rows = run_suite(engine, scenarios, headline, f"{run.name}@{step}", report)
        if jax.process_index() == 0:
            write_bytes(place, result_lines(rows).encode())

    return InLoopEvals(evaluate_step, evals.every_steps, evals.every_tokens)


def evaluate(space: Workspace, run: StageRun, report: Report) -> None:
    """Runs the suite, the capability tasks and the alignment tax on a run's last checkpoint.

    Of several processes the first one writes; the tax comes last, for it says that the job is done.
    """
    config = space.config
    engine = Engine.from_checkpoint(space.run_dir(run.name))
    scenarios = load_suite(config.evals.suite, config.data.world)
    results = result_lines(run_suite(engine, scenarios, config.evals, run.name, report))
    tasks = [read_task(spec) for spec in config.evals.capabilities]
    solutions = [one for task in tasks for one in solve(engine, task, run.name, report)]
    scores = score_texts(engine, held_out_documents(space), run.name, report)
    if jax.process_index() == 0:
        write_bytes(space.eval_dir(run.name) / RESULTS, results.encode())
        for name, rows in ((SOLUTIONS, solutions), (TAX, scores)):
            lines = "".join(canonical_json(row.to_json()) + "\n" for row in rows)
            write_bytes(space.eval_dir(run.name) / name, lines.encode())


def enable_compilation_cache(folder: PathLike) -> None:
    """Keeps compiled programs in a folder, so that a run that goes on does not compile again."""
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
