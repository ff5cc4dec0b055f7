"""One stage of training: the loop, the step, the optimizer, checkpoints, metrics and faults."""

from alignpre_jax.training.checkpoints import load_params
from alignpre_jax.training.config import GuardConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from alignpre_jax.training.digests import parameters_digest
from alignpre_jax.training.distributed import initialize
from alignpre_jax.training.faults import HOST_LOST, STALLED, skipped_slots
from alignpre_jax.training.in_loop import InLoopEvals
from alignpre_jax.training.loop import Run, is_done, train
from alignpre_jax.training.metrics import TIMES
from alignpre_jax.training.seeds import train_seeds
from alignpre_jax.training.step import State, StepConfig, TrainStep, make_train_step
from alignpre_jax.training.traces import DocumentLoss, read_traces

__all__ = [
    "HOST_LOST",
    "STALLED",
    "TIMES",
    "DocumentLoss",
    "GuardConfig",
    "InLoopEvals",
    "OptimizerConfig",
    "Run",
    "ScheduleConfig",
    "State",
    "StepConfig",
    "TrainStep",
    "TrainingConfig",
    "initialize",
    "is_done",
    "load_params",
    "make_train_step",
    "parameters_digest",
    "read_traces",
    "skipped_slots",
    "train",
    "train_seeds",
]
