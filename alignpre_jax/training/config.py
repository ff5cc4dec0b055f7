"""This module holds the settings of a training run, as plain data that is checked once: optimizer, schedule, mesh,
checkpoints, faults.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """A `GuardConfig` says what becomes of a step whose loss or gradient is not finite, or whose loss is a spike.

    With "skip" and "rollback" such a step changes nothing but the step number: its rows count as skipped. After
    `patience` such steps in a row the parameters themselves are taken to be damaged: "skip" then stops the run,
    "rollback" goes back to the newest checkpoint and steps over the rows that were seen since. "stop" compiles no
    guard and stops the run at the next logged step whose loss is not finite.
    """

    action: Literal["stop", "skip", "rollback"] = "skip"
    spike_mads: float = 0.0  # a loss above median + this many MADs of the last `window` losses is a spike; 0: never
    window: int = 128  # steps; spikes are looked for once half of them are there
    patience: int = 5  # bad steps in a row before a rollback, or before giving up
    budget: int = 100  # bad steps of the whole run before giving up
    rollbacks: int = 3  # of the whole run before giving up

    def __post_init__(self):
        _at_least(self, 1, "window", "patience", "budget")
        _at_least(self, 0, "spike_mads", "rollbacks")
        if self.spike_mads and self.action == "stop":
            raise UserError(
                "spikes are looked for, but the guard is off",
                where="spike_mads and action",
                fix="set action=skip or action=rollback, or spike_mads=0",
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An `OptimizerConfig` says how a batch becomes an update.

    Weight decay is decoupled and acts on matrices (norms, biases and other vectors are not decayed). `name` is "adamw"
    (Loshchilov and Hutter 2019, arXiv 1711.05101); "adafactor" (Shazeer and Stern 2018, arXiv 1804.04235); "muon", for
    the matrices of the blocks (Jordan 2024; updates have AdamW's size, Liu et al. 2025, arXiv 2502.16982, eq. 4), with
    AdamW for the rest; or "sgd" with `momentum`.
    """

    name: Literal["adamw", "adafactor", "muon", "sgd"] = "adamw"
    beta1: float = 0.9  # adamw, and muon's AdamW
    beta2: float = 0.95  # the same
    eps: float = 1e-8  # the same
    momentum: float = 0.95  # muon and sgd (where 0 turns it off)
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # global gradient norm; 0 turns clipping off
    accumulate: int = 1  # microbatches that a batch is computed in; the update is that of the whole batch
    ema_decay: float = 0.0  # of the moving average of the parameters, e.g. 0.9999; 0 keeps no average
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)

    def __post_init__(self):
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is not in [0, 1)", where=name, fix="give a decay such as 0.95")
        _at_least(self, 0, "eps", "weight_decay", "clip_norm")
        _at_least(self, 1, "accumulate")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A `ScheduleConfig` is the learning rate over a stage: a linear warmup, then cosine or linear decay to the final
    rate, a constant rate, or "wsd".

    WSD stays at the peak and falls over the last `decay_share` of the stage, linearly or as 1 - sqrt(x)
    (Hägele et al. 2024, arXiv 2405.18392, eq. 2).
    """

    peak: float = 3e-4
    final: float = 0.0
    warmup_share: float = 0.01  # of the stage's steps
    shape: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    decay_share: float = 0.2  # of the stage's steps; wsd only
    decay: Literal["linear", "sqrt"] = "linear"  # wsd only

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
        if self.shape == "wsd" and not 0 < self.decay_share <= 1 - self.warmup_share:
            raise UserError(
                f"a decay over {self.decay_share} of the stage after a warmup over {self.warmup_share}",
                where="decay_share and warmup_share",
                fix="give shares above 0 that add up to at most 1",
            )


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """A `LoopConfig` says how the loop runs; nothing in it changes which rows are seen or what is learnt from them."""

    mesh: str = "fsdp:-1"  # axis:size pairs out of data, fsdp, sequence, tensor; -1 takes the devices that are left
    dcn_mesh: str = ""  # the mesh of the slices, where there are several (`mesh` is that of each); "": all along data
    checkpoint_every: int = 1000  # steps
    checkpoint_minutes: float = 0.0  # a checkpoint is also due this long after the last one; 0: by step only
    keep_checkpoints: int = 2  # how many of the newest checkpoints are kept
    keep_every: int = 0  # steps; checkpoints at multiples of it are kept for good; 0: none are
    log_every: int = 10  # steps
    trackers: tuple[str, ...] = ()  # beside metrics.jsonl: "tensorboard", "wandb:PROJECT"
    trace_documents: str = ""  # a source or stratum whose documents' losses are written to traces/; "all"; "": none
    profile_steps: str = ""  # FIRST:LAST, the steps of which a profiler trace is written
    peak_flops: float = 0.0  # FLOP/s of a device at the matrices' precision, for MFU; 0: from a table, if it is there
    start_minutes: float = 60.0  # deadline from the start to the end of the first step; 0: none
    eval_minutes: float = 60.0  # deadline of an eval in the loop, from one sign of progress to the next; 0: none
    step_minutes: float = 30.0  # deadline of a later step, with the checkpoint after it; 0: none
    shutdown_minutes: float = 30.0  # deadline for the last checkpoint to be on disk; 0: none

    def __post_init__(self):
        _at_least(self, 1, "checkpoint_every", "keep_checkpoints", "log_every")
        _at_least(self, 0, "checkpoint_minutes", "keep_every", "peak_flops")
        _at_least(self, 0, "start_minutes", "eval_minutes", "step_minutes", "shutdown_minutes")
        for tracker in self.trackers:
            kind, _, project = tracker.partition(":")
            if kind not in ("tensorboard", "wandb") or (kind == "wandb") != bool(project):
                raise UserError(
                    f"{tracker!r} is not a tracker", where="trackers", fix="give tensorboard or wandb:PROJECT"
                )
        self.profiled()

    def profiled(self) -> range:
        """Returns the steps that `profile_steps` names."""
        if not self.profile_steps:
            return range(0)
        first, _, last = self.profile_steps.partition(":")
        if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
            raise UserError(
                f"{self.profile_steps!r} is not FIRST:LAST", where="profile_steps", fix="give steps such as 100:105"
            )
        return range(int(first), int(last) + 1)


def _at_least(config: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            what = f"{getattr(config, name)} is " + ("negative" if least == 0 else f"less than {least}")
            raise UserError(what, where=name, fix=f"give {least} or more")
