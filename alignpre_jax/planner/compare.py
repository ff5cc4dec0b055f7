"""Compares two plans, by the figures of `to_json`: what changed in FLOPs, cycles, bytes on the wires and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# The figures that are worse when they grow; the others are shown, but never guarded.
GUARDED = ("step, ms", "HBM, GiB", "program FLOPs", "cycles in all", "exposed collectives, ms", "received by ICI, GiB")


@dataclasses.dataclass(frozen=True)
class Change:
    """One figure of a stage before and after; None where a side does not have the figure."""

    stage: str
    figure: str
    before: float | None
    after: float | None

    @property
    def ratio(self) -> float | None:
        """The figure after over the figure before; None where one of them is missing, or the first is 0."""
        return self.after / self.before if self.before and self.after is not None else None

    def worse_by(self, percent: float) -> bool:
        """Whether a guarded figure grew by more than `percent`, or a stage that fitted before no longer fits."""
        if self.figure == "fits":
            return bool(self.before) and not self.after
        return self.figure in GUARDED and self.ratio is not None and self.ratio > 1 + percent / 100


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Returns the changes of every stage that both plans have, figure by figure."""
    stages = {stage["stage"]: stage for stage in before["stages"]}
    changes = []
    for stage in after["stages"]:
        if stage["stage"] not in stages:
            continue
        old, new = _figures(stages[stage["stage"]]), _figures(stage)
        changes += [Change(stage["stage"], name, old.get(name), new.get(name)) for name in old | new]
    return changes


def _figures(stage: Mapping[str, Any]) -> dict[str, float]:
    figures = {"fits": float(stage["fits"]), "HBM, GiB": stage["hbm_needed"] / (1 << 30)}
    if not stage["fits"]:
        return figures
    figures |= {
        "step, ms": stage["step_seconds"] * 1e3,
        "model FLOPs": stage["model_flops"],
        "program FLOPs": stage["program_flops"],
        "cycles in all": sum(stage["cycles"].values()),
    }
    figures |= {f"cycles: {kind}": cycles for kind, cycles in sorted(stage["cycles"].items())}
    figures["attention, ms"] = stage["time"]["attention"] * 1e3
    figures["kernel bytes, GiB"] = sum(each["calls"] * each["bytes"] for each in stage["kernels"]) / (1 << 30)
    figures["exposed collectives, ms"] = stage["time"]["exposed_collectives"] * 1e3
    received: dict[str, float] = {}
    for each in stage["collectives"]:
        network = "DCN" if each["between_slices"] else "ICI"
        received[network] = received.get(network, 0.0) + each["bytes"] / (1 << 30)
        name = f"{each['kind']}, {'overlapped' if each['overlapped'] else 'exposed'}, GiB"
        received[name] = received.get(name, 0.0) + each["bytes"] / (1 << 30)
    return figures | {(f"received by {key}, GiB" if key in ("ICI", "DCN") else key): x for key, x in received.items()}
