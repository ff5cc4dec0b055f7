"""This module writes a run's metrics: one JSON object per logged step, exactly once, whatever was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from alignpre_jax.foundation import PathLike, canonical_json, disk_errors, write_bytes

FILE = "metrics.jsonl"
# The keys of a line that depend on the machine and the moment; all others are the same whenever the run is made.
TIMES = ("tokens_per_second", "seconds", "input_wait", "goodput", "mfu", "hbm_bytes", "hbm_peak_bytes")


class MetricsLog:
    """A `MetricsLog` appends to `RUN_DIR/metrics.jsonl`, line by line.

    Args:
      run_dir: the run's folder.
      done: the step that the run goes on from. Lines about later steps were written by a process that died before its
        next checkpoint; they are dropped, since those steps run again.
    """

    def __init__(self, run_dir: PathLike, *, done: int):
        self.path = epath.Path(run_dir) / FILE
        kept = kept_lines(self.path, done)
        self.seconds: float = json.loads(kept[-1])["seconds"] if kept else 0.0  # spent on the steps that are kept
        if jax.process_index() == 0:
            write_bytes(self.path, "".join(kept).encode())

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends one line."""
        with disk_errors(self.path), self.path.open("a") as file:
            file.write(canonical_json(values) + "\n")


def kept_lines(path: epath.Path, done: int) -> list[str]:
    """Returns the lines of `path` about steps up to `done`, without a last line that was written only in part."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # the writer died in the middle of this line
        if json.loads(line)["step"] <= done:
            kept.append(line)
    return kept


def metrics_line(step: int, values: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
    """Returns the line of a step, without what depends on the clock; figures that are not finite are null.

    Args:
      step: its number, from 1.
      values: what the train step returned, on the host.
      rows: how many rows were trained on up to this step, by stratum; its keys are the strata that "source_loss" and
        "source_tokens" are about, in their order.
    """
    stores = list(rows)
    totals = dict(zip(stores, zip(values["source_loss"], values["source_tokens"], strict=True), strict=True))
    by_source: dict[str, np.ndarray] = {}
    for name, pair in totals.items():
        source = name.split("/")[0]
        by_source[source] = by_source.get(source, np.zeros(2)) + np.asarray(pair, np.float64)
    line = {
        "step": step,
        "loss": number(values["loss"]),
        "batch_fingerprint": f"{int(values['batch_fingerprint']):08x}",
        "stratum_loss": {name: number(total / count) for name, (total, count) in totals.items() if count > 0},
        "source_loss": {name: number(total / count) for name, (total, count) in by_source.items() if count > 0},
        "stratum_rows": dict(rows),
        "learnt_tokens": int(np.sum(values["source_tokens"])),
        **{name: number(values[name]) for name in ("learning_rate", "gradient_norm", "update_norm")},
    }
    return line | ({"skipped": True} if values.get("bad_streak", 0) > 0 else {})


def number(value: Any) -> float | None:
    """Returns a float for JSON, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def memory_in_use() -> dict[str, int]:
    """Returns the bytes in use on this process's fullest device, now and at the peak, if the backend tells them."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    names = {"hbm_bytes": "bytes_in_use", "hbm_peak_bytes": "peak_bytes_in_use"}
    return {key: max(int(s[name]) for s in stats) for key, name in names.items() if stats and name in stats[0]}
