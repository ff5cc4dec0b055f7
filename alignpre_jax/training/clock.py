"""This module measures where the time of a run goes: tokens per second, MFU, input wait, goodput."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """A `Clock` measures a run between its logged steps.

    Args:
      step: the step that the run goes on from.
      tokens_per_step: the tokens in the global batch.
      flops_per_step: the FLOPs of the global batch, attention counted causally; see `DecoderConfig.flops_per_token`.
      peak_flops: the peak of all devices together, FLOP/s; 0 where that is not known.
      before: seconds that earlier processes spent on the steps up to `step`.
      productive: seconds in which earlier processes computed steps that still count.
      first_start: Unix time at which the run was first started.
    """

    def __init__(
        self,
        step: int,
        *,
        tokens_per_step: int,
        flops_per_step: float,
        peak_flops: float,
        before: float = 0.0,
        productive: float = 0.0,
        first_start: float = 0.0,
    ):
        self._step, self._tokens_per_step = step, tokens_per_step
        self._flops_per_step, self._peak_flops = flops_per_step, peak_flops
        self._since = self._saved = time.perf_counter()
        self._zero = self._since - before
        self._first_start = first_start or time.time()
        self.productive = productive
        self._waited = self._waited_in_step = 0.0
        self._last_step_end: float | None = None  # None: the next step compiles, and does not count as productive

    def tick(self, step: int) -> dict[str, float]:
        """Returns the figures at a logged step; the first rate of a process includes the compilation."""
        now = time.perf_counter()
        passed = max(now - self._since, 1e-9)
        steps = step - self._step
        line = {
            "tokens_per_second": round(steps * self._tokens_per_step / passed, 1),
            "seconds": round(now - self._zero, 3),
            "input_wait": round(self._waited / passed, 5),
            "goodput": round(min(self.productive / max(time.time() - self._first_start, 1e-9), 1.0), 5),
        }
        if self._peak_flops:
            line["mfu"] = round(steps * self._flops_per_step / passed / self._peak_flops, 5)
        self._step, self._since, self._waited = step, now, 0.0
        return line

    def stepped(self) -> None:
        """Records that a step was handed to the devices."""
        now = time.perf_counter()
        if self._last_step_end is not None:
            self.productive += max(now - self._last_step_end - self._waited_in_step, 0.0)
        self._last_step_end, self._waited_in_step = now, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside this context as waiting for input."""
        start = time.perf_counter()
        yield
        passed = time.perf_counter() - start
        self._waited += passed
        self._waited_in_step += passed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside this context, for checkpoints and evals, out of the rate."""
        start = time.perf_counter()
        yield
        self._saved = time.perf_counter()
        self._since += self._saved - start
        if self._last_step_end is not None:
            self._last_step_end += self._saved - start

    def minutes_since_save(self) -> float:
        """Returns the minutes since the last checkpoint (or the evals after it), or else since the start."""
        return (time.perf_counter() - self._saved) / 60

    def jump(self, step: int, productive: float) -> None:
        """Records that the run goes on from `step` after a rollback, and that the work since the checkpoint is lost."""
        self._step, self._since, self._waited = step, time.perf_counter(), 0.0
        self.productive, self._last_step_end = productive, None
