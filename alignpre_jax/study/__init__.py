"""This room holds a study: its config, the tree of its runs, the graph of its jobs, and the code that does each job."""

from alignpre_jax.study.config import Add, ArmConfig, Filter, StageConfig, StudyConfig
from alignpre_jax.study.graph import Job, evals_of, job_graph, with_needs
from alignpre_jax.study.jobs import enable_compilation_cache, is_done, run_job
from alignpre_jax.study.keys import Recipes
from alignpre_jax.study.plans import stage_plan
from alignpre_jax.study.sources import DataConfig, SourceConfig
from alignpre_jax.study.tree import StageRun, Tree
from alignpre_jax.study.workspace import Workspace, open_workspace, reopen_workspace

__all__ = [
    "Add",
    "ArmConfig",
    "DataConfig",
    "Filter",
    "Job",
    "Recipes",
    "SourceConfig",
    "StageConfig",
    "StageRun",
    "StudyConfig",
    "Tree",
    "Workspace",
    "enable_compilation_cache",
    "evals_of",
    "is_done",
    "job_graph",
    "open_workspace",
    "reopen_workspace",
    "run_job",
    "stage_plan",
    "with_needs",
]
