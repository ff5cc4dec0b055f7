"""The sides of the training bench share their rows, their timing and what they print. This needs numpy alone."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[], Any]  # dispatches one update
Wait = Callable[[Any], Any]  # waits until what a step returned is there


def arguments() -> argparse.Namespace:
    """Reads `--shape`, the decoder as JSON (with `rows` and `length`), and `--seconds` of steady training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", type=json.loads, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    return parser.parse_args()


def example_rows(shape: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Makes int32 [rows, length] tokens and segments, with three documents in each row."""
    rows, length = shape["rows"], shape["length"]
    segments = 1 + (np.arange(length)[None] * 3 // length).repeat(rows, 0)
    tokens = np.random.default_rng(0).integers(0, shape["vocab_size"], (rows, length), np.int32)
    return tokens, segments.astype(np.int32)


def measure(step: Step, wait: Wait, shape: dict[str, Any], seconds: float) -> None:
    """Prints seconds to the end of the first step, steady tokens per second of the clock and of CPU time, peak GB."""
    start = time.perf_counter()
    wait(step())
    compiled = time.perf_counter() - start
    for _ in range(3):
        wait(step())
    steady, busy, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - steady < seconds:
        wait(step())
        steps += 1
    tokens = steps * shape["rows"] * shape["length"]
    speed, cpu_speed = tokens / (time.perf_counter() - steady), tokens / (time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"speed": speed, "cpu_speed": cpu_speed, "compile": compiled, "memory": peak}))
