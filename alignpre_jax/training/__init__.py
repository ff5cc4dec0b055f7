"""One stage of training: the loop, the step, the optimizer, checkpoints and metrics."""

from alignpre_jax.training.checkpoints import load_params
from alignpre_jax.training.config import OptimizerConfig, ScheduleConfig, TrainingConfig
from alignpre_jax.training.loop import Run, is_done, parameters_digest, train
from alignpre_jax.training.mesh import parse_mesh
from alignpre_jax.training.step import State, StepConfig, TrainStep, make_train_step

__all__ = [
    "OptimizerConfig",
    "Run",
    "ScheduleConfig",
    "State",
    "StepConfig",
    "TrainStep",
    "TrainingConfig",
    "is_done",
    "load_params",
    "make_train_step",
    "parameters_digest",
    "parse_mesh",
    "train",
]
