"""Loss functions over rows, one file each, found by name."""

from alignpre_jax.objectives import mle as _mle  # noqa: F401  (enters the registry)
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.registry import OBJECTIVES, Aux, Objective, ObjectiveConfig, RowBatch, get_objective

__all__ = ["OBJECTIVES", "Aux", "Objective", "ObjectiveConfig", "RowBatch", "get_objective", "token_losses"]
