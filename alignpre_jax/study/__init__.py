"""A study: its config, its graph of jobs, and how each job is done."""

from alignpre_jax.study.config import ArmConfig, DataConfig, SourceConfig, StageConfig, StudyConfig
from alignpre_jax.study.graph import Job, StageRun, final_run, jobs, run_path, stage_runs, with_needs
from alignpre_jax.study.keys import job_keys
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.runner import enable_compilation_cache, is_done, run_job
from alignpre_jax.study.workspace import Workspace, open_workspace, reopen_workspace, versions

__all__ = [
    "ArmConfig",
    "DataConfig",
    "Job",
    "SourceConfig",
    "StageConfig",
    "StageRun",
    "StudyConfig",
    "Workspace",
    "enable_compilation_cache",
    "final_run",
    "is_done",
    "job_keys",
    "jobs",
    "open_workspace",
    "reopen_workspace",
    "run_job",
    "run_path",
    "stage_plan",
    "stage_runs",
    "versions",
    "with_needs",
]
