"""Objectives by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model import Decoder

Aux = dict[str, jax.Array]


class RowBatch(Protocol):
    """What an objective reads of a batch: int32 [B, L] tokens, and segments (1-based per row, 0 for padding)."""

    @property
    def tokens(self) -> Any:
        """Token ids."""

    @property
    def segments(self) -> Any:
        """Which document of its row a token is from."""


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and its settings.

    Args:
      name: key of the registry.
      z_loss: weight of mean(log Z ^ 2), which keeps the softmax's normaliser near 1 (PaLM, arXiv 2204.02311,
        section 5, uses 1e-4); 0 leaves it out.
      chunk_bytes: memory for one chunk of float32 logits on one device; 0 chooses it by platform.
    """

    name: str = "mle"
    z_loss: float = 0.0
    chunk_bytes: int = 0

    def __post_init__(self):
        for name in ("z_loss", "chunk_bytes"):
            if getattr(self, name) < 0:
                raise UserError(f"{getattr(self, name)} is negative", where=name, fix="give 0 or more")


Objective = Callable[[ObjectiveConfig, Decoder, RowBatch], tuple[jax.Array, Aux]]
OBJECTIVES: dict[str, Objective] = {}


def register(name: str) -> Callable[[Objective], Objective]:
    """Decorator: enters an objective under `name`."""

    def enter(objective: Objective) -> Objective:
        assert name not in OBJECTIVES, name
        OBJECTIVES[name] = objective
        return objective

    return enter


def get_objective(name: str) -> Objective:
    """The objective called `name`: `(config, decoder, batch) -> (loss, aux)`, loss a float32 scalar.

    Raises:
      UserError: when there is none, with a suggestion.
    """
    if name not in OBJECTIVES:
        raise UserError(f"no objective is called {name!r}", where="objective.name", fix=suggest(name, OBJECTIVES))
    return OBJECTIVES[name]
