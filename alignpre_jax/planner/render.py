"""Shows plans as a table for people and as JSON for programs."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from alignpre_jax.foundation import GIB
from alignpre_jax.planner.compare import Change
from alignpre_jax.planner.cost import StudyCost
from alignpre_jax.planner.plan import HOW, Plan, StageWork
from alignpre_jax.planner.search import Search


def show(plans: Sequence[Plan], console: Console | None = None) -> None:
    """Prints a column per stage, what the study costs in all, and how the figures were made."""
    console = console or Console(highlight=False)
    topology = plans[0].topology
    shape = f"{topology.slices} x {topology.name}" if topology.slices > 1 else topology.name
    table = Table(title=f"Prediction for {shape} ({topology.chips:,} chips)", title_justify="left")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.work.name, justify="right")
    rows = [figures_of(plan) for plan in plans]
    for label in dict.fromkeys(label for row in rows for label in row):
        table.add_row(label, *(row.get(label, "") for row in rows))
    console.print(table)
    for plan in plans:
        if not plan.fits:
            console.print(f"[bold]{plan.work.name} does not fit.[/bold] What would help:", *plan.advice, sep="\n  ")
    if all(plan.fits for plan in plans) and any(plan.work.runs for plan in plans):
        hours = sum(plan.speed.chip_hours for plan in plans if plan.speed)
        console.print(f"All runs of these stages: {hours:,.1f} chip-hours.")
    console.print(f"[dim]{HOW}[/dim]")


def show_cost(cost: StudyCost, console: Console | None = None) -> None:
    """Prints what the study costs, arm by arm."""
    console = console or Console(highlight=False)
    table = Table(title="Cost", title_justify="left")
    for name in ("one seed of", "chip-hours alone", "days alone", "added to the study", "money alone"):
        table.add_column(name, justify="left" if name == "one seed of" else "right")
    for arm, alone in cost.arms.items():
        figures = (f"{alone.chip_hours:,.1f}", f"{alone.days:,.2f}", f"{cost.added[arm].chip_hours:,.1f}")
        table.add_row(arm, *figures, _money(alone.dollars))
    table.add_row("shared by several arms", "", "", f"{cost.shared.chip_hours:,.1f}", "")
    console.print(table)
    price = "no price is known for this chip" if cost.price is None else f"${cost.price:,.2f} per chip-hour"
    total = f"{cost.total.chip_hours:,.1f} chip-hours, {cost.total.days:,.2f} days on one such topology"
    console.print(
        f"The study, {cost.seeds} seed(s), shared stages once: {total}, {_money(cost.total.dollars)} ({price})."
    )


def show_search(found: Search, console: Console | None = None) -> None:
    """Prints what was compiled, the front, and the config to take."""
    console = console or Console(highlight=False)
    table = Table(title=f"Search for {found.work.name}", title_justify="left")
    for name in ("remat", "accumulate", "mesh", "ms per step", "HBM, GiB", ""):
        table.add_column(name, overflow="fold")
    front = found.front
    for each in found.candidates:
        if each.plan is not None:
            verdict = "front" if each in front else "" if each.plan.fits else "too large"
            step = f"{each.seconds * 1e3:,.1f}" if each.plan.fits else ""
            table.add_row(each.remat, str(each.accumulate), each.mesh, step, f"{each.plan.needed / GIB:,.2f}", verdict)
    console.print(table)
    left = sum(each.plan is None for each in found.candidates)
    console.print(
        f"{left} more were not compiled: too large by the estimate, or slower by it (--search=N asks for more)."
    )
    taken = f"Take: {found.best.flags}" if found.best else "Nothing that was compiled fits; raise --search."
    console.print(taken, soft_wrap=True)


def show_changes(changes: Sequence[Change], console: Console | None = None) -> None:
    """Prints two plans side by side."""
    console = console or Console(highlight=False)
    table = Table(title="Compared", title_justify="left")
    for name in ("stage", "figure", "before", "after", "ratio"):
        table.add_column(name, justify="left" if name in ("stage", "figure") else "right")
    for each in changes:
        numbers = ("" if x is None else f"{x:.5g}" for x in (each.before, each.after))
        table.add_row(each.stage, each.figure, *numbers, "" if each.ratio is None else f"{each.ratio:.3f}")
    console.print(table)


def search_json(found: Search) -> dict[str, Any]:
    """Returns what a search has tried as JSON-ready values."""
    keys = ("remat", "accumulate", "mesh", "estimated_bytes", "estimated_seconds")
    rows = []
    for each in found.candidates:
        row = {key: getattr(each, key) for key in keys}
        if each.plan is not None:
            step = each.seconds if each.plan.fits else None
            row |= {"fits": each.plan.fits, "hbm_needed": each.plan.needed, "step_seconds": step}
            row["on_front"] = each in found.front
        rows.append(row)
    return {"stage": found.work.name, "best": found.best.flags if found.best else None, "candidates": rows}


def _money(dollars: float | None) -> str:
    return "" if dollars is None else f"${dollars:,.0f}"


def to_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """Returns all figures as JSON-ready values: bytes, FLOPs and cycles per device, times in seconds."""
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


def time_parts(plan: Plan) -> dict[str, float]:
    """Returns the milliseconds of a step by kind; what the network adds when it is the slowest is a part of its own."""
    assert plan.time is not None, plan.work.name
    assert plan.costs is not None, plan.work.name
    time, cycles = plan.time, plan.costs.cycles
    total = sum(cycles.values()) or 1
    parts = {kind: time.compute * count / total for kind, count in sorted(cycles.items(), key=lambda item: -item[1])}
    parts |= {"attention": time.attention, "exposed collectives": time.exposed_collectives}
    if (rest := time.step - sum(parts.values())) > 1e-9 * time.step:
        parts["waiting for the network"] = rest
    return {kind: seconds * 1e3 for kind, seconds in parts.items()}


def memory_parts(plan: Plan) -> dict[str, float]:
    """Returns the GiB of HBM on a device by kind."""
    assert plan.memory is not None, plan.work.name
    sizes = dict(plan.groups) or {"state and batch": plan.memory.arguments}
    parts = {name: size for name, size in sizes.items() if size >= 0.001 * plan.memory.needed}
    parts["activations and temporaries"] = plan.memory.needed - plan.memory.arguments - plan.memory.code
    parts["other"] = max(plan.memory.needed - sum(parts.values()), 0.0)
    return {name: size / GIB for name, size in parts.items()}


def figures_of(plan: Plan) -> dict[str, str]:
    """Returns the lines of a plan's column, by their labels."""
    work = plan.work
    if isinstance(work, StageWork):
        figures = {
            "rows x tokens per step": f"{work.batch_rows:,} x {work.row_length:,}",
            "steps per run, runs": f"{work.steps:,}, {work.runs}",
        }
    else:
        figures = {"rows x slots, tokens per call": f"{work.batch_rows:,} x {work.slots:,}, {work.steps_per_call}"}
    figures["mesh"] = work.mesh
    verdict = "fits" if plan.fits else f"too large by {(plan.needed - plan.available) / GIB:,.1f} GiB"
    figures["HBM per device, GiB"] = f"{plan.needed / GIB:,.2f} of {plan.available / GIB:,.2f}: {verdict}"
    if plan.memory is None or plan.time is None or plan.speed is None or plan.costs is None:
        return figures
    figures |= {f"  {name}": f"{size:,.2f}" for name, size in memory_parts(plan).items()}
    unreported = " and taken: the compiler wrote no report" if plan.memory.allocated is None else ""
    figures["  (sizes added up)"] = f"({plan.memory.sum / GIB:,.2f}{unreported})"
    time, speed = plan.time, plan.speed
    figures["step, ms"] = _ms(time.step)
    figures |= {f"  {name}": f"{part:,.2f} ({part / 1e3 / time.step:.0%})" for name, part in time_parts(plan).items()}
    figures["  (all collectives)"] = f"({_ms(time.all_collectives)})"
    if plan.topology.slices > 1:
        known = plan.topology.chip.dcn_bandwidth > 0
        figures["  (between slices)"] = f"({_ms(time.between_slices)})" if known else "(rate unknown)"
    figures |= {
        "binds": time.binds,
        "tokens/s": f"{speed.tokens_per_second:,.0f}",
        "tokens/s per chip": f"{speed.tokens_per_second_per_chip:,.0f}",
        "cycles per token and chip": f"{speed.cycles_per_token_per_chip:,.0f}",
        "MFU (causal)": f"{speed.mfu:.1%}",
        "FLOPs compiled / model": f"{plan.program_flops / plan.model_flops:.2f}",
    }
    if work.runs:
        figures |= {"days per run": f"{speed.days:,.3f}", "chip-hours, all runs": f"{speed.chip_hours:,.1f}"}
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
        "memory": dataclasses.asdict(plan.memory) | {"sum": plan.memory.sum},
        "memory_groups": dict(plan.groups),
        "largest_arguments": [dataclasses.asdict(tensor) for tensor in plan.tensors],
        "largest_temporaries": [dataclasses.asdict(buffer) for buffer in plan.buffers],
        "binds": plan.time.binds,
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
    """Returns the calls and bytes per step of all collectives, by kind, group and schedule."""
    calls: collections.Counter[tuple] = collections.Counter()
    received: collections.defaultdict[tuple, float] = collections.defaultdict(float)
    for each in plan.costs.collectives if plan.costs else ():
        key = (each.kind, each.devices, each.overlapped, each.between_slices)
        calls[key] += each.times
        received[key] += each.bytes * each.times
    names = ("kind", "devices", "overlapped", "between_slices")
    return [dict(zip(names, key, strict=True)) | {"calls": n, "bytes": received[key]} for key, n in calls.items()]
