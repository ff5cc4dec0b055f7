"""This package holds what a model is trained towards: each objective is one file with one frozen dataclass, and all of
them keep one contract.
"""

from typing import TypeAlias

from alignpre_jax.objectives.contract import Aux, Columns, Contract, Models, Terms, total
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.mle import Mle, next_tokens

# The objectives that a config may name. A second one makes this a union, whose members the tag `name` tells apart.
Objective: TypeAlias = Mle

__all__ = ["Aux", "Columns", "Contract", "Mle", "Models", "Objective", "Terms", "next_tokens", "token_losses", "total"]
