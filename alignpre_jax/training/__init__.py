"""This package trains one stage: it holds the loop, the step, the optimizer, metrics and faults."""

from alignpre_jax.training.config import GuardConfig, LoopConfig, OptimizerConfig, ScheduleConfig
from alignpre_jax.training.distributed import first_says, initialize
from alignpre_jax.training.faults import HOST_LOST, STALLED, skipped_slots
from alignpre_jax.training.in_loop import InLoopEvals
from alignpre_jax.training.loop import is_done, train
from alignpre_jax.training.metrics import TIMES
from alignpre_jax.training.run import Run
from alignpre_jax.training.seeds import train_seeds
from alignpre_jax.training.step import Fixed, StepConfig, TrainStep, make_train_step
from alignpre_jax.training.traces import DocumentLoss, read_traces

__all__ = [
    "HOST_LOST",
    "STALLED",
    "TIMES",
    "DocumentLoss",
    "Fixed",
    "GuardConfig",
    "InLoopEvals",
    "OptimizerConfig",
    "Run",
    "ScheduleConfig",
    "StepConfig",
    "TrainStep",
    "LoopConfig",
    "first_says",
    "initialize",
    "is_done",
    "make_train_step",
    "read_traces",
    "skipped_slots",
    "train",
    "train_seeds",
]
