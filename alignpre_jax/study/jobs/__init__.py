"""The jobs of a study: each kind has a function that does it, and a test whether it is done."""

from __future__ import annotations

import os

import jax
from etils import epath

from alignpre_jax.checkpoints import import_model_run
from alignpre_jax.foundation import PathLike, Report
from alignpre_jax.study.graph import Job, evals_of
from alignpre_jax.study.jobs.evaluate import evaluate, is_answered
from alignpre_jax.study.jobs.rows import is_prepared, prepare
from alignpre_jax.study.jobs.train import training_run
from alignpre_jax.study.keys import Recipe
from alignpre_jax.study.made import write_made
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import is_done as is_trained
from alignpre_jax.training import train_seeds


def is_done(space: Workspace, job: Job) -> bool:
    """Whether all outputs of the job are there, and whole."""
    match job.kind:
        case "import":
            return is_trained(space.imported)
        case "prepare":
            return is_prepared(space)
        case "train":
            return all(is_trained(space.run_dir(run)) for run in job.runs)
        case "eval":
            asked = evals_of(space.config, space.tree[job.run])
            return all(is_answered(space, job.run, name) for name in asked)
    raise AssertionError(job.kind)


def run_job(space: Workspace, job: Job, report: Report) -> None:
    """Does a job to its end. A job that was interrupted before goes on from what it had saved."""
    if job.kind == "import":
        _say_made(space.imported, space.recipes.imported())
        import_model_run(space.config.init_from, space.imported, model=space.config.model, report=report)
    elif job.kind == "prepare":
        prepare(space, report)
    elif job.kind == "eval":
        evaluate(space, space.tree[job.run], report)
    else:
        for name in job.runs:
            _say_made(space.run_dir(name), space.recipes.run(space.tree[name]))
        runs = [training_run(space, space.tree[name]) for name in job.runs]
        train_seeds(runs, report, places=space.config.vmap_seeds)  # seeds that come when the study grows have places


def _say_made(folder: epath.Path, recipe: Recipe) -> None:
    if jax.process_index() == 0:
        write_made(folder, recipe)


def enable_compilation_cache(folder: PathLike) -> None:
    """Keeps compiled programs in a folder, so that a run that goes on does not compile again.

    Where $JAX_COMPILATION_CACHE_DIR is set, the folder that it names is used instead; several studies can share it.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
