"""What a training run is told: optimizer, schedule, mesh, checkpoints. Plain data, checked once."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay on matrices (norms, biases and other vectors are not decayed)."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # global gradient norm; 0 turns clipping off

    def __post_init__(self):
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is not in [0, 1)", where=name, fix="give a decay such as 0.95")
        for name in ("eps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise UserError(f"{getattr(self, name)} is negative", where=name, fix="give 0 or more")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over a stage: linear warmup, then cosine or linear to the final rate, or constant."""

    peak: float = 3e-4
    final: float = 0.0
    warmup_share: float = 0.01  # of the stage's steps
    shape: Literal["cosine", "linear", "constant"] = "cosine"

    def __post_init__(self):
        if self.peak <= 0:
            raise UserError(f"a learning rate of {self.peak}", where="peak", fix="give a rate above 0")
        if not 0 <= self.final <= self.peak:
            raise UserError(
                f"the final rate {self.final} is not between 0 and the peak {self.peak}",
                where="final",
                fix="lower `final` or raise `peak`",
            )
        if not 0 <= self.warmup_share < 1:
            raise UserError(f"{self.warmup_share} is not in [0, 1)", where="warmup_share", fix="give e.g. 0.01")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the loop runs; nothing in here changes which rows are seen."""

    mesh: str = "fsdp:-1"  # axis:size pairs out of data, fsdp, tensor; -1 takes the devices that are left
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 2
    log_every: int = 10  # steps

    def __post_init__(self):
        for name in ("checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is less than 1", where=name, fix="give 1 or more")
