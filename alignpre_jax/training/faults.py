"""This module deals with what can go wrong while training: it has events, skipped steps, signals and clear errors."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from alignpre_jax.checkpoints.folder import DONE
from alignpre_jax.foundation import (
    Event,
    PathLike,
    Report,
    UserError,
    canonical_json,
    disk_errors,
    read_json,
)

EVENTS = "events.jsonl"

# The exit statuses beside 0, 2 (a user's mistake) and 75 (interrupted, and saved).
STALLED = 76  # the watchdog's deadline passed
HOST_LOST = 77  # another host of the run has vanished


class EventLog:
    """An `EventLog` writes `RUN_DIR/events.jsonl`: everything out of the ordinary, once for each time that it happened.

    Each line has `event`, `step`, `time` (Unix seconds). Unlike metrics.jsonl this file is never cut: what a process
    did before it died stays in it. Events with a sentence are shown in the terminal and the log as well.
    """

    def __init__(self, run_dir: PathLike, name: str, report: Report):
        self._path, self._name, self._report = epath.Path(run_dir) / EVENTS, name, report

    def __call__(self, kind: str, step: int, sentence: str = "", **facts: Any) -> None:
        """Records one event; the first process does so for all processes."""
        if sentence:
            logging.warning("%s: %s", self._name, sentence)
        if jax.process_index() != 0:
            return
        line = {"event": kind, "step": step, "time": round(time.time(), 3), **facts}
        if sentence:
            self._report(Event(self._name, note=f"{self._name}: {sentence}"))
        with disk_errors(self._path), self._path.open("a") as file:
            file.write(canonical_json(line | ({"note": sentence} if sentence else {})) + "\n")

    def first_start(self) -> float:
        """Returns the Unix time at which the run was first started, or the present time if that is not known."""
        if self._path.exists():
            with self._path.open("r") as file:
                for line in file:
                    if '"event":"start"' in line:
                        return float(line.split('"time":')[1].split(",")[0].rstrip("}\n"))
        return time.time()


@dataclasses.dataclass(frozen=True)
class Skip:
    """A `Skip` names steps [first, last] whose batches left no trace in the parameters; "bad" or "rollback" is why."""

    first: int
    last: int
    why: str


class Skips:
    """`Skips` are all skipped steps of a run, in order; every checkpoint holds them, so that going on is exact."""

    def __init__(self, saved: Sequence[Sequence[Any]] = ()):
        self.all = [Skip(int(first), int(last), str(why)) for first, last, why in saved]

    def bad(self, step: int) -> None:
        """Adds a step that the guard skipped."""
        self.all.append(Skip(step, step, "bad"))

    def roll_back(self, to: int, step: int) -> None:
        """Adds the steps after checkpoint `to` up to `step`, whose updates are given up."""
        self.all = [skip for skip in self.all if skip.last <= to]
        self.all.append(Skip(to + 1, step, "rollback"))

    def count(self, why: str) -> int:
        """Returns how many skips of one kind there were."""
        return sum(skip.why == why for skip in self.all)

    def steps(self) -> int:
        """Returns how many steps were skipped."""
        return sum(skip.last - skip.first + 1 for skip in self.all)

    def to_json(self) -> list[list[Any]]:
        """Returns the skips in the form that `Skips` takes."""
        return [[skip.first, skip.last, skip.why] for skip in self.all]


def skipped_slots(run_dir: PathLike) -> list[tuple[int, int]]:
    """Returns the slots [start, stop) of a finished run's plan that left no trace in its parameters, in order.

    The run was trained on the plan's ledger less these slots.
    """
    done = read_json(epath.Path(run_dir) / DONE)
    rows = done["batch_rows"]
    return [((first - 1) * rows, last * rows) for first, last, _ in done["skipped"]]


class StopSignal:
    """Turns SIGTERM into a flag that the loop looks at after every step.

    The main thread hears the signal; loops in other threads (`seeds.train_seeds`) see the same flag.
    """

    asked = False

    def __enter__(self) -> StopSignal:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            StopSignal.asked = False
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _ask(self, *_: object) -> None:
        logging.warning("SIGTERM: saving a checkpoint after this step")
        StopSignal.asked = True


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turns a device's out-of-memory error into a `UserError` that names the keys that matter."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        line = next((line for line in str(error).splitlines() if "RESOURCE_EXHAUSTED" in line), str(error))
        raise UserError(
            f"out of memory: {line.strip()[:300]}",
            where="stages.STAGE.batch_rows, stages.STAGE.optimizer.accumulate, model.remat, loop.mesh",
            fix="raise stages.STAGE.optimizer.accumulate (same update, smaller microbatches), set model.remat=full, "
            "lower stages.STAGE.batch_rows, or spread the state over more devices with loop.mesh=fsdp:-1",
        ) from error


def bad_step(step: int, values: Mapping[str, Any]) -> str:
    """Returns a sentence about a step that the guard skipped."""
    loss, norm = float(values["loss"]), float(values["gradient_norm"])
    return f"step {step} skipped: the loss is {loss:.4g}, the gradient norm {norm:.4g}"
