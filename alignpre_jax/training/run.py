"""This module holds what one training run is told, which is a stage of one arm and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.foundation import PathLike
from alignpre_jax.mixture import Plan
from alignpre_jax.rows import RowStore
from alignpre_jax.rows.template import Template
from alignpre_jax.training.config import LoopConfig
from alignpre_jax.training.in_loop import InLoopEvals
from alignpre_jax.training.step import StepConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """A `Run` is one stage of one arm and seed, ready to train.

    Attributes:
      name: the run's name, shown in progress and logs.
      run_dir: the run's folder; gets checkpoints, metrics.jsonl, events.jsonl and what makes it a
        model (see `checkpoints.folder`).
      step: everything that the compiled step depends on.
      loop: mesh, checkpoint and log intervals.
      plan: the plan of the stage, which says which row is in which slot.
      stores: the row stores that the plan names.
      batch_rows: the number of rows in the global batch.
      seed: the seed of the initial parameters, where the run does not start from another, and of fresh adapters.
      tokenizer: path of the tokenizer that the rows were made with; copied beside the checkpoints.
      start_from: folder of the run whose last checkpoint this one starts from; empty for a fresh model.
        The optimizer starts anew in every stage.
      reference: folder of the run whose last checkpoint the objective compares with; empty where it compares with none.
      template: the chat template of the model that is made; None stands for that of the model it starts from.
      labels: facts written into every metrics line (stage, arms, seed).
      evals: evals during training.
    """

    name: str
    run_dir: PathLike
    step: StepConfig
    loop: LoopConfig
    plan: Plan
    stores: Mapping[str, RowStore]
    batch_rows: int
    seed: int
    tokenizer: PathLike
    start_from: str = ""
    reference: str = ""
    template: Template | None = None
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evals: Sequence[InLoopEvals] = ()
