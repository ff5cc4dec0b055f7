"""Plans as a table for people and as JSON for programs."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from alignpre_jax.planner.chips import GIB
from alignpre_jax.planner.plan import HOW, Plan


def show(plans: Sequence[Plan], console: Console | None = None) -> None:
    """Prints a column per stage, what the study costs in all, and how the figures were made."""
    console = console or Console(highlight=False)
    topology = plans[0].topology
    shape = f"{topology.slices} x {topology.name}" if topology.slices > 1 else topology.name
    table = Table(title=f"Prediction for {shape} ({topology.chips:,} chips)", title_justify="left")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.work.name, justify="right")
    rows = [_figures(plan) for plan in plans]
    for label in dict.fromkeys(label for row in rows for label in row):
        table.add_row(label, *(row.get(label, "") for row in rows))
    console.print(table)
    for plan in plans:
        if not plan.fits:
            console.print(f"[bold]{plan.work.name} does not fit.[/bold] What would help:", *plan.advice, sep="\n  ")
    if all(plan.fits for plan in plans):
        hours = sum(plan.speed.chip_hours for plan in plans if plan.speed)
        console.print(f"All runs of these stages: {hours:,.1f} chip-hours.")
    console.print(f"[dim]{HOW}[/dim]")


def to_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """All figures; bytes, FLOPs and cycles per device, times in seconds."""
    topology = plans[0].topology
    return {
        "prediction": True,
        "how": HOW,
        "topology": topology.name,
        "slices": topology.slices,
        "chips": topology.chips,
        "chip": dataclasses.asdict(topology.chip),
        "stages": [_plan_json(plan) for plan in plans],
        "chip_hours": sum(plan.speed.chip_hours for plan in plans if plan.speed)
        if all(p.fits for p in plans)
        else None,
    }


def _figures(plan: Plan) -> dict[str, str]:
    work = plan.work
    figures = {
        "rows x tokens per step": f"{work.batch_rows:,} x {work.row_length:,}",
        "steps per run, runs": f"{work.steps:,}, {work.runs}",
        "mesh": work.mesh,
    }
    verdict = "fits" if plan.fits else f"too large by {(plan.needed - plan.available) / GIB:,.1f} GiB"
    figures["HBM per device, GiB"] = f"{plan.needed / GIB:,.2f} of {plan.available / GIB:,.2f}: {verdict}"
    if plan.memory is None or plan.time is None or plan.speed is None or plan.costs is None:
        return figures
    parts = {
        "state and batch": plan.memory.arguments,
        "temporaries": plan.memory.temporaries,
        "new outputs, code": plan.memory.new_outputs + plan.memory.code,
    }
    figures |= {f"  {name}": f"{size / GIB:,.2f}" for name, size in parts.items()}
    time, speed, cycles = plan.time, plan.speed, plan.costs.cycles
    figures["step, ms"] = _ms(time.step)
    total = sum(cycles.values())
    for kind, count in sorted(cycles.items(), key=lambda item: -item[1]):
        figures[f"  {kind}"] = _ms(time.compute * count / total)
    figures["  attention kernels"] = _ms(time.attention)
    figures["  exposed collectives"] = _ms(time.exposed_collectives)
    figures["  (all collectives)"] = f"({_ms(time.all_collectives)})"
    if plan.topology.slices > 1:
        known = plan.topology.chip.dcn_bandwidth > 0
        figures["  (between slices)"] = f"({_ms(time.between_slices)})" if known else "(rate unknown)"
    figures |= {
        "tokens/s": f"{speed.tokens_per_second:,.0f}",
        "tokens/s per chip": f"{speed.tokens_per_second_per_chip:,.0f}",
        "cycles per token and chip": f"{speed.cycles_per_token_per_chip:,.0f}",
        "MFU (causal)": f"{speed.mfu:.1%}",
        "FLOPs compiled / model": f"{plan.program_flops / plan.model_flops:.2f}",
        "days per run": f"{speed.days:,.3f}",
        "chip-hours, all runs": f"{speed.chip_hours:,.1f}",
    }
    return figures


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}"


def _plan_json(plan: Plan) -> dict[str, Any]:
    work = plan.work
    figures: dict[str, Any] = {
        "stage": work.name,
        "mesh": work.mesh,
        "batch_rows": work.batch_rows,
        "row_length": work.row_length,
        "steps": work.steps,
        "runs": work.runs,
        "fits": plan.fits,
        "hbm_needed": plan.needed,
        "hbm_available": plan.available,
        "advice": plan.advice,
    }
    if plan.memory is None or plan.time is None or plan.speed is None or plan.costs is None:
        return figures
    return figures | {
        "memory": dataclasses.asdict(plan.memory),
        "step_seconds": plan.time.step,
        "time": dataclasses.asdict(plan.time),
        "speed": dataclasses.asdict(plan.speed),
        "model_flops": plan.model_flops,
        "program_flops": plan.program_flops,
        "cycles": plan.costs.cycles,
        "kernels": [
            {"name": kernel.name, "calls": kernel.times, "bytes": kernel.bytes} for kernel in plan.costs.kernels
        ],
        "collectives": _collectives(plan),
        "unpriced": plan.costs.unpriced,
    }


def _collectives(plan: Plan) -> list[dict[str, Any]]:
    """Calls and bytes per step, by kind, group and schedule."""
    calls: collections.Counter[tuple] = collections.Counter()
    received: collections.defaultdict[tuple, float] = collections.defaultdict(float)
    for each in plan.costs.collectives if plan.costs else ():
        key = (each.kind, each.devices, each.overlapped, each.between_slices)
        calls[key] += each.times
        received[key] += each.bytes * each.times
    names = ("kind", "devices", "overlapped", "between_slices")
    return [dict(zip(names, key, strict=True)) | {"calls": n, "bytes": received[key]} for key, n in calls.items()]
