"""This module writes profiler traces of chosen steps, for TensorBoard, XProf or Perfetto."""

from __future__ import annotations

import os
from typing import Any

import jax
from etils import epath

from alignpre_jax.foundation import PathLike

FOLDER = "profile"


class Profiler:
    """A `Profiler` traces the steps in `steps` into RUN_DIR/profile, and does nothing at other steps."""

    def __init__(self, run_dir: PathLike, steps: range):
        self._folder, self._steps, self._is_on = epath.Path(run_dir) / FOLDER, steps, False

    def before(self, step: int) -> None:
        """Begins the trace when `step` is among those to be traced."""
        if step in self._steps and not self._is_on:
            jax.profiler.start_trace(os.fspath(self._folder))
            self._is_on = True

    def after(self, step: int, values: Any) -> None:
        """Ends the trace when `step`, which returned `values`, is the last of the steps to be traced."""
        if self._is_on and step >= self._steps[-1]:
            jax.block_until_ready(values)
            self.close()

    def close(self) -> None:
        """Ends the trace, however many steps it has."""
        if self._is_on:
            jax.profiler.stop_trace()
            self._is_on = False
