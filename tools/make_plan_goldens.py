"""Writes what the planner predicts for each preset on each chip, for a test that notices when a program changes.

    python tools/make_plan_goldens.py tests/planner/goldens [--presets=NAME,...] [--chips=v4,v5e,v5p,v6e] [--slices=1,2]
        [--works=train,decode] [--check]

PRESET.json has an entry for each chip, number of slices and work. A slice has sixteen chips, parameters are split over
all of them, and a chip trains on two rows and decodes eight. Entries that are there already are kept; --check compiles
them again and compares. Compiling one takes from half a minute to some minutes, and no TPU. `made_with.json` says with
which jax and libtpu the files were made. A change of these files is a decision: the commit says why.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from alignpre_jax.foundation import read_json, write_json
from alignpre_jax.model import PRESETS, get_preset
from alignpre_jax.objectives import Mle
from alignpre_jax.planner import Plan, StageWork, Work, parse_topology, plan_stage
from alignpre_jax.planner.decode import decode_work
from alignpre_jax.planner.program import parse
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig

TOPOLOGIES = {"v4": "v4:2x2x4", "v5e": "v5e:4x4", "v5p": "v5p:2x2x4", "v6e": "v6e:4x4"}
WORKS = ("train", "decode")
LENGTH, CHIPS = 2048, 16
TOLERANCE = {"cycles_per_token": 0.02, "hbm_gib": 0.03, "collective_mb": 0.02, "exposed_mb": 0.05, "kernels": 0.0}


def work_of(preset: str, kind: str, slices: int) -> Work:
    """The work that is compiled for a preset; `kind` is one of WORKS."""
    config, chips = get_preset(preset), CHIPS * slices
    length = min(LENGTH, config.max_length)
    if kind == "decode":
        return decode_work(config, "fsdp:-1", rows=8 * chips, slots=length)
    objective, optimizer, schedule = Mle(), OptimizerConfig(), ScheduleConfig()
    remat = "full" if config.num_params() > 1e9 else config.remat
    step = StepConfig(dataclasses.replace(config, remat=remat), objective, optimizer, schedule, steps=1, sources=1)
    return StageWork("train", step, "fsdp:-1", 2 * chips, length, 2 * chips * length, runs=1)


def figures(plan: Plan) -> dict[str, Any]:
    """The figures that are compared. Bytes are those that one device receives in a step; HBM is a sum of sizes."""
    if plan.costs is None or plan.speed is None or plan.memory is None:
        return {"fits": False, "needed_gib": round(plan.needed / 2**30, 2)}
    collectives = plan.costs.collectives
    return {
        "fits": True,
        "cycles_per_token": round(plan.speed.cycles_per_token_per_chip, 1),
        "hbm_gib": round(plan.memory.sum / 2**30, 4),
        "collective_mb": round(sum(each.bytes * each.times for each in collectives) / 1e6, 3),
        "exposed_mb": round(sum(each.bytes * each.times for each in collectives if not each.overlapped) / 1e6, 3),
        "kernels": sum(kernel.times for kernel in plan.costs.kernels),
        "flops_ratio": round(plan.program_flops / plan.model_flops, 4),
        "largest_f32": largest_float32(plan),
    }


def largest_float32(plan: Plan) -> float:
    """The number of elements of the program's largest float32 array, over that of the logits of a device's tokens."""
    if not isinstance(plan.work, StageWork):
        return 0.0
    logits = plan.work.tokens_per_step * plan.work.step.model.padded_vocab / plan.topology.chips
    return round(parse(plan.text).largest("f32") / logits, 4)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """Says in words which figures differ by more than TOLERANCE."""
    if found["fits"] != wanted["fits"]:
        yield f"fits: {found['fits']}, was {wanted['fits']}"
        return
    for name, tolerance in TOLERANCE.items() if found["fits"] else ():
        if abs(found[name] - wanted[name]) > tolerance * abs(wanted[name]):
            yield f"{name}: {found[name]}, was {wanted[name]}"


def compile_case(preset: str, case: str, cache: Path | None = None) -> dict[str, Any]:
    """Compiles a case such as "v5e x1 train" and returns its figures."""
    chip, slices, kind = case.split()
    count = int(slices.removeprefix("x"))
    return figures(plan_stage(work_of(preset, kind, count), parse_topology(TOPOLOGIES[chip], count), cache))


def main() -> None:
    """Runs the script; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--chips", default=",".join(TOPOLOGIES))
    parser.add_argument("--slices", default="1,2")
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--check", action="store_true", help="compile what is there and compare")
    given = parser.parse_args()
    cases = [
        (preset, f"{chip} x{slices} {kind}")
        for slices in given.slices.split(",")
        for kind in given.works.split(",")
        for chip in given.chips.split(",")
        for preset in given.presets.split(",")
    ]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    wrong = 0
    for preset, case in cases:
        place = given.folder / f"{preset}.json"
        known = read_json(place) if place.exists() else {}
        if (case in known) != given.check:
            continue
        started = time.perf_counter()
        found = compile_case(preset, case)
        print(f"{preset} {case}: {json.dumps(found)} ({time.perf_counter() - started:.0f} s)", flush=True)
        if given.check:
            for difference in differences(found, known[case]):
                wrong += 1
                print(f"  {difference}", flush=True)
        else:
            write_json(place, dict(sorted((known | {case: found}).items())))
            write_json(given.folder / "made_with.json", versions)
    sys.exit(f"{wrong} figures changed" if wrong else 0)


if __name__ == "__main__":
    main()
