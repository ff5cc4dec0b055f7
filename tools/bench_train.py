"""Measures training speed beside Levanter, a plain optax loop and transformers with torch; on an accelerator, MFU.

    python tools/bench_train.py [--json=FILE] [--seconds=10] [--rounds=3] [--preset=small_world] [--rows=16]
        [--levanter_python=VENV/bin/python] [--torch_python=VENV/bin/python]
    python tools/bench_train.py --accelerator [--preset=pythia_1p4b] [--rows=8] [--length=2048] [--remat=save:...]

On the CPU all sides have the same decoder, dtype, optimizer and number of tokens. Every side has a process of its own
with one thread, and the sides take turns; a ratio is the median over the rounds of the ratio within a round. Tokens per
second of CPU time depend least on what else the machine does. Levanter (`pip install marin-levanter`) and transformers
with torch live in environments of their own, named by a flag or by $LEVANTER_PYTHON and $TORCH_PYTHON; a side without
an environment is reported as not installed.
On an accelerator the MFU (attention counted causally) is against the bfloat16 matmul rate measured in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = {
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
SIDES = {
    "ours": "ours",
    "levanter": "Levanter",
    "optax_loop": "plain optax loop",
    "torch": "transformers + torch",
}
METRICS = (
    ("speed", "tokens/s"),
    ("cpu_speed", "tokens/CPU-s"),
    ("compile", "s"),
    ("memory", "GB"),
)


def shape_of(preset: str, rows: int, length: int) -> dict[str, Any]:
    """The preset's decoder as plain data, with the size of a batch."""
    from alignpre_jax.foundation import to_mapping
    from alignpre_jax.model import get_preset

    model = get_preset(preset)
    return to_mapping(model) | {"rows": rows, "length": length or model.max_length}


def run_side(side: str, python: str, shape: dict[str, Any], seconds: float) -> dict[str, float] | None:
    """Runs one side in a process and returns its figures; None, after printing why, where it does not run."""
    script = ROOT / "tools" / "train_benches" / (f"{side}_loop.py" if side in ("levanter", "torch") else f"{side}.py")
    command = [python, str(script), f"--shape={json.dumps(shape)}", f"--seconds={seconds}"]
    env = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{SIDES[side]} does not run: {(done.stderr.strip().splitlines() or ['?'])[-1][:300]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compare(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures all sides, which take turns."""
    shape = shape_of(given.preset, given.rows, given.length)
    pythons = {"ours": sys.executable, "optax_loop": sys.executable}
    pythons |= {"levanter": given.levanter_python, "torch": given.torch_python}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    absent = {side for side in SIDES if not pythons[side]}
    for _ in range(given.rounds):
        for side in SIDES:
            if side not in absent:
                result = run_side(side, pythons[side], shape, given.seconds)
                if result is None:
                    absent.add(side)
                else:
                    found[side].append(result)
    assert found["ours"], "our own side does not run"
    rows: list[dict[str, Any]] = []
    for metric, unit in METRICS:
        value = statistics.median(each[metric] for each in found["ours"])
        for side, name in list(SIDES.items())[1:]:
            row = {"metric": f"train_{metric}", "value": value, "unit": unit, "peer": name}
            if side in absent:
                rows.append(row | {"peer": f"{name} (not installed)", "peer_value": None, "ratio": None})
                continue
            pairs = zip(found["ours"], found[side], strict=True)
            ratio = statistics.median(one[metric] / other[metric] for one, other in pairs)
            peer = statistics.median(each[metric] for each in found[side])
            rows.append(row | {"peer_value": peer, "ratio": ratio})
    print(f"{given.preset}, {shape['rows']} x {shape['length']} tokens per step, 1 thread of {os.cpu_count()} cores")
    return rows


def whole_loop(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures the training loop itself over rows on disk: its speed, and the share of time that it waits for input."""
    script = ROOT / "tools" / "train_benches" / "whole_loop.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), f"--folder={folder}", f"--preset={given.preset}"]
        env = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, f"--rows={given.rows}"], env=env, stdout=subprocess.PIPE, text=True, check=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    units = {"loop_speed": "tokens/s", "input_wait": "of the time"}
    plain = {"peer": "", "peer_value": None, "ratio": None}
    return [{"metric": f"train_{name}", "value": found[name], "unit": unit} | plain for name, unit in units.items()]


def accelerator(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures the step's MFU on this machine's accelerator, against the matmul rate that it is seen to reach."""
    sys.path.insert(0, str(ROOT))
    from alignpre_jax.model import get_preset
    from tools.train_benches.accelerator import matmul_rate, step_rate

    model = dataclasses.replace(get_preset(given.preset), dtype="bfloat16")
    if given.remat:
        model = dataclasses.replace(model, remat=given.remat)
    length = given.length or model.max_length
    peak = matmul_rate()
    found = step_rate(model, given.rows, length, given.seconds)
    print(f"{found['device']}, {given.preset}, {given.rows} x {length}, attention by {found['attention']}")
    mfu = found["tokens_per_second"] * model.flops_per_token(length) / peak
    rows = [
        {"metric": "matmul_rate", "value": peak / 1e12, "unit": "TFLOP/s, bfloat16"},
        {"metric": "train_speed", "value": found["tokens_per_second"], "unit": "tokens/s"},
        {"metric": "mfu", "value": mfu, "unit": "of the matmul rate, attention causal"},
        {"metric": "train_compile", "value": found["compile"], "unit": "s"},
        {"metric": "hbm_peak", "value": found["hbm_peak"] / 1e9, "unit": "GB"},
    ]
    return [row | {"peer": "", "peer_value": None, "ratio": None} for row in rows]


def main() -> None:
    """Prints the table; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="", help="write the figures here")
    parser.add_argument("--seconds", type=float, default=10.0, help="of steady training per round and side")
    parser.add_argument("--rounds", type=int, default=3, help="turns; the median counts")
    parser.add_argument("--preset", default="", help="default: small_world, or pythia_1p4b with --accelerator")
    parser.add_argument("--rows", type=int, default=0, help="per step; default: 16, or 8 with --accelerator")
    parser.add_argument("--length", type=int, default=0, help="tokens per row; default: the preset's max_length")
    parser.add_argument("--remat", default="", help="with --accelerator; see DecoderConfig.remat")
    parser.add_argument("--accelerator", action="store_true", help="measure MFU instead")
    parser.add_argument("--levanter_python", default=os.environ.get("LEVANTER_PYTHON", ""))
    parser.add_argument("--torch_python", default=os.environ.get("TORCH_PYTHON", ""))
    given = parser.parse_args()
    given.preset = given.preset or ("pythia_1p4b" if given.accelerator else "small_world")
    given.rows = given.rows or (8 if given.accelerator else 16)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    rows: list[dict[str, Any]] = []
    for part in (accelerator,) if given.accelerator else (compare, whole_loop):
        for row in part(given):
            figures = f"{row['value']:>12,.3f} {row['unit']:<14}"
            peer = f"{row['peer']} {row['peer_value']:,.3f}, ratio {row['ratio']:.2f}" if row["ratio"] else row["peer"]
            print(f"{row['metric']:<16} {figures} {peer}", flush=True)
            rows.append(row)
        if given.json:
            Path(given.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
