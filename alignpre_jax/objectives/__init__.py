"""What a model is trained towards: one file and one frozen dataclass for each objective, under one contract."""

from typing import TypeAlias

from alignpre_jax.objectives.contract import Aux, Columns, Contract, Models, Terms, total
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.mle import Mle, next_tokens

# What a config may name. A second objective makes this a union, told apart by the tag `name`.
Objective: TypeAlias = Mle

__all__ = ["Aux", "Columns", "Contract", "Mle", "Models", "Objective", "Terms", "next_tokens", "token_losses", "total"]
