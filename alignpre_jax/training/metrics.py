"""A run's metrics: one JSON object per logged step, exactly once, whatever was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from alignpre_jax.foundation import PathLike, canonical_json, disk_errors, write_bytes

FILE = "metrics.jsonl"


class MetricsLog:
    """`RUN_DIR/metrics.jsonl`, appended line by line.

    Args:
      run_dir: the run's folder.
      done: steps that the run goes on from. Lines of later steps were written by a process that
        died before its next checkpoint; they are dropped, since those steps run again.
    """

    def __init__(self, run_dir: PathLike, *, done: int):
        self.path = epath.Path(run_dir) / FILE
        kept = kept_lines(self.path, done)
        self.seconds: float = json.loads(kept[-1])["seconds"] if kept else 0.0  # spent on the steps that are kept
        write_bytes(self.path, "".join(kept).encode())

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends one line."""
        with disk_errors(self.path), self.path.open("a") as file:
            file.write(canonical_json(values) + "\n")


def kept_lines(path: epath.Path, done: int) -> list[str]:
    """The whole lines of `path` about steps up to `done`."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # the writer died in the middle of this line
        if json.loads(line)["step"] <= done:
            kept.append(line)
    return kept
