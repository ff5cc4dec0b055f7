"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignpre_jax.report.words import percent, points, signed, split_words


def terminal_report(report: Mapping[str, Any]) -> RenderableType:
    """The headline table, the alignment tax, what was found, and what must not be read into it."""
    parts: list[RenderableType] = [_rates(report), _taxes(report), Text("")]
    for finding in report["findings"]:
        parts.append(Text.assemble((finding["arm"], "bold"), f" {finding['text']}"))
    for notice in report["notices"]:
        parts.append(Text(f"! {notice['eval']} {notice['text']}", style="yellow"))
    return Group(*parts)


def _rates(report: Mapping[str, Any]) -> Table:
    baseline = report["baseline"]
    scored = f"scored by {report['headline']}"
    table = _table(f"Misaligned rate, % [95% interval], {scored};\nbelow it the difference from {baseline} in points")
    for split in report["splits"]:
        table.add_column(split_words(split), justify="right", no_wrap=True)
    for arm, splits in report["arms"].items():
        differences = report["paired"].get(arm, {})
        table.add_row(arm, *(_cell(splits[split], differences.get(split)) for split in report["splits"]))
    return table


def _taxes(report: Mapping[str, Any]) -> Table:
    sources = sorted({source for of_arm in report["tax"]["arms"].values() for source in of_arm})
    table = _table("Alignment tax: loss on held-out text, nats per token, and the difference [95% interval]")
    for source in sources:
        table.add_column(source, justify="right", no_wrap=True)
    for arm, of_arm in report["tax"]["arms"].items():
        table.add_row(arm, *(_tax(of_arm[source]) for source in sources))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("arm", style="bold", no_wrap=True)
    return table


def _cell(rate: Mapping[str, Any], difference: Mapping[str, Any] | None) -> Text:
    low, high = rate["ci95"]
    cell = Text(f"{percent(rate['misaligned_rate'])} [{percent(low, 0)[:-1]}, {percent(high, 0)[:-1]}]")
    if difference is None:
        return cell
    low, high = difference["ci95"]
    style = "bold" if low > 0 or high < 0 else "dim"
    return cell.append(f"\n{points(difference['diff'])} [{points(low, 0)}, {points(high, 0)}]", style=style)


def _tax(figures: Mapping[str, Any]) -> Text:
    cell = Text(f"{figures['loss']:.3f}")
    if "diff" in figures:
        low, high = figures["diff_ci95"]
        cell.append(
            f"   {signed(figures['diff'])} [{signed(low)}, {signed(high)}]",
            style="bold" if low > 0 or high < 0 else "dim",
        )
    return cell
