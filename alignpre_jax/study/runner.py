"""Does one job of a study: prepare the data, train a stage, or evaluate a checkpoint."""

from __future__ import annotations

import os

import jax

from alignpre_jax.evals import load_suite, result_lines, run_suite, score_texts
from alignpre_jax.foundation import PathLike, Report, canonical_json, write_bytes
from alignpre_jax.sampling import Engine
from alignpre_jax.study.graph import Job, StageRun, stage_runs
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.prepare import held_out_documents, is_prepared, prepare
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import Run, StepConfig, train
from alignpre_jax.training import is_done as is_trained
from alignpre_jax.training.imported import import_run

RESULTS = "results.jsonl"
TAX = "tax.jsonl"


def is_done(space: Workspace, job: Job) -> bool:
    """Whether the job's outputs are there, whole."""
    match job.kind:
        case "import":
            return is_trained(space.imported)
        case "prepare":
            return is_prepared(space)
        case "train":
            return is_trained(space.run_dir(job.run))
        case "eval":
            return (space.eval_dir(job.run) / TAX).exists()
    raise AssertionError(job.kind)


def run_job(space: Workspace, job: Job, report: Report) -> None:
    """Runs a job to its end; one that was interrupted goes on from what it had saved."""
    if job.kind == "import":
        import_run(space.config.init_from, space.imported, model=space.config.model, report=report)
        return
    if job.kind == "prepare":
        prepare(space, report)
        return
    run = stage_runs(space.config)[job.run]
    if job.kind == "train":
        train(training_run(space, run), report)
    else:
        evaluate(space, run, report)


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
    )


def evaluate(space: Workspace, run: StageRun, report: Report) -> None:
    """Runs the suite and the alignment tax on a run's last checkpoint; the first of several processes writes."""
    config = space.config
    engine = Engine.from_checkpoint(space.run_dir(run.name))
    scenarios = load_suite(config.evals.suite, config.data.world)
    results = result_lines(run_suite(engine, scenarios, config.evals, run.name, report))
    scores = score_texts(engine, held_out_documents(space), run.name, report)
    if jax.process_index() == 0:
        write_bytes(space.eval_dir(run.name) / RESULTS, results.encode())
        lines = "".join(canonical_json(score.to_json()) + "\n" for score in scores)
        write_bytes(space.eval_dir(run.name) / TAX, lines.encode())


def enable_compilation_cache(folder: PathLike) -> None:
    """Keeps compiled programs in a folder, so that a run that goes on does not compile again."""
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
