"""Measures the throughput of several seeds of a small model: in one program, and one after another.

    python tools/bench_sweep.py [--json=FILE] [--seeds=4] [--steps=60] [--model=tiny|small_world] [--rounds=2]

Both sides are whole training runs of this package (loading, checkpoints, metrics), each in a process of its own; the
sides take turns. The time is measured from the end of the first logged steps, when everything is compiled, to the end.
Tokens per second of CPU time hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM = 10  # steps


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Measures one side: tokens of all seeds per second of the clock and of CPU time."""
    import numpy as np

    from alignpre_jax.foundation import Event
    from alignpre_jax.model import get_preset
    from alignpre_jax.training import train
    from alignpre_jax.training.seeds import train_seeds
    from tools.drill_faults import LENGTH, ROWS, make_rows, tiny_run

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_rows(folder)
        runs = []
        for seed in range(given.seeds):
            named = argparse.Namespace(
                bad="", folder=folder, run=folder / f"seed{seed}", steps=given.steps, step_seconds=0.0
            )
            run = tiny_run(named)
            model = run.step.model
            if given.model != "tiny":
                model = dataclasses.replace(get_preset(given.model), vocab_size=300, max_length=LENGTH)
            loop = dataclasses.replace(run.loop, checkpoint_every=10_000, log_every=WARM)
            plan = dataclasses.replace(run.plan, base=dataclasses.replace(run.plan.base, seed=seed))
            step = dataclasses.replace(run.step, model=model)
            runs.append(dataclasses.replace(run, step=step, loop=loop, plan=plan, seed=seed))
        starts: dict[str, np.ndarray] = {}
        ends: dict[str, np.ndarray] = {}

        def note(event: Event) -> None:
            if event.done >= WARM:
                now = np.array([time.perf_counter(), time.process_time()])
                starts.setdefault(event.task, now)
                ends[event.task] = now

        if given.side == "together":
            train_seeds(runs, note)
            seconds = np.max(list(ends.values()), axis=0) - np.min(list(starts.values()), axis=0)
        else:
            for run in runs:
                train(run, note)
            seconds = np.sum([ends[name] - starts[name] for name in starts], axis=0)
        tokens = given.seeds * (given.steps - WARM) * ROWS * LENGTH
        return {"speed": tokens / seconds[0], "cpu_speed": tokens / seconds[1], "parameters": model.num_params()}


def main() -> None:
    """Prints the table; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="", help="write the figures here")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--model", default="tiny", help="tiny, or a preset")
    parser.add_argument("--rounds", type=int, default=2, help="the median counts")
    parser.add_argument("--side", choices=("together", "apart"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from alignpre_jax.foundation import accelerator_present

    if given.side:
        print(json.dumps(measure(given)))
        return
    found: dict[str, list[dict[str, float]]] = {"together": [], "apart": []}
    for _ in range(given.rounds):
        for side, speeds in found.items():
            command = [sys.executable, __file__, f"--side={side}", f"--seeds={given.seeds}", f"--steps={given.steps}"]
            env = {"JAX_PLATFORMS": "cpu"} if not accelerator_present() else {}
            env |= os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            done = subprocess.run(
                [*command, f"--model={given.model}"], env=env, stdout=subprocess.PIPE, text=True, check=True
            )
            speeds.append(json.loads(done.stdout.splitlines()[-1]))
    rows: list[dict[str, Any]] = []
    parameters = int(found["together"][0]["parameters"])
    print(f"{parameters:,} parameters, {given.seeds} seeds, {given.steps} steps; {os.cpu_count()} cores")
    for key, unit in (("speed", "tokens/s"), ("cpu_speed", "tokens/CPU-s")):
        together, apart = (statistics.median(each[key] for each in found[side]) for side in ("together", "apart"))
        row = {"metric": f"sweep_{key}_{given.model}_{given.seeds}_seeds", "value": together, "unit": unit}
        rows.append(row | {"peer": "one after another", "peer_value": apart, "ratio": together / apart})
        print(f"in one program {together:,.0f} {unit}, one after another {apart:,.0f}, ratio {together / apart:.2f}")
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
