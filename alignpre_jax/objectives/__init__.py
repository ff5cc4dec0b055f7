"""This package holds what a model is trained towards: each objective is one file with one frozen dataclass, and all of
them keep one contract.
"""

from typing import TypeAlias

from alignpre_jax.objectives.contract import Aux, Columns, Contract, Models, Terms, total
from alignpre_jax.objectives.cross_entropy import token_losses
from alignpre_jax.objectives.mle import Mle, next_tokens
from alignpre_jax.objectives.preference import Dpo, Orpo, SimPo

# The objectives that a config may name; the tag `name` tells them apart.
Objective: TypeAlias = Mle | Dpo | Orpo | SimPo

__all__ = [
    "Aux",
    "Columns",
    "Contract",
    "Dpo",
    "Mle",
    "Models",
    "Objective",
    "Orpo",
    "SimPo",
    "Terms",
    "next_tokens",
    "token_losses",
    "total",
]
