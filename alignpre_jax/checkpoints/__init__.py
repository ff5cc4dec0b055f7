"""This package deals with model folders: saving and restoring while training, and the one way to read a model."""

from alignpre_jax.checkpoints.bases import base_facts, digest_of
from alignpre_jax.checkpoints.digests import parameters_digest, tree_digests
from alignpre_jax.checkpoints.exported import export
from alignpre_jax.checkpoints.folder import own_template
from alignpre_jax.checkpoints.imported import import_model_run
from alignpre_jax.checkpoints.loading import Model, load, read_facts
from alignpre_jax.checkpoints.state import GuardState, State
from alignpre_jax.checkpoints.steps import MADE, Checkpoints, Restored, describe, several_at_a_time

__all__ = [
    "MADE",
    "Checkpoints",
    "GuardState",
    "Model",
    "Restored",
    "State",
    "base_facts",
    "describe",
    "digest_of",
    "export",
    "import_model_run",
    "load",
    "own_template",
    "parameters_digest",
    "read_facts",
    "several_at_a_time",
    "tree_digests",
]
