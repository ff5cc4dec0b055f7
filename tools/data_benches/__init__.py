"""These are the parts of tools/bench_data.py: one module per topic, each with `measure(quick)`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Figure:
    """A measured figure, beside the figure of a peer that was measured in the same run (None where there is no peer).

    `ratio` is ours over the peer's for rates, and the peer's over ours for durations: above 1, ours is better.
    """

    metric: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None


def rate(metric: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> Figure:
    """Makes a figure of which more is better."""
    return Figure(metric, value, unit, peer, peer_value, value / peer_value if peer_value else None)


def duration(metric: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> Figure:
    """Makes a figure of which less is better."""
    return Figure(metric, value, unit, peer, peer_value, peer_value / value if peer_value and value else None)


def fastest(*works: Callable[[], object], repeats: int = 5) -> list[float]:
    """The seconds that each of `works` takes at its best. They take turns, so that a busy moment hits all of them."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def main(measures: Iterable[Callable[[bool], Iterator[Figure]]], description: str) -> None:
    """The command line of a benchmark: prints a table, and writes the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write a list of {metric, value, unit, peer, peer_value, ratio}")
    parser.add_argument("--quick", action="store_true", help="smaller work, for a first look")
    given = parser.parse_args()
    table = Table(title=f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    for column in ("metric", "value", "unit", "peer", "peer's value", "ratio"):
        table.add_column(column, justify="right" if column in ("value", "peer's value", "ratio") else "left")
    figures = []
    for measure in measures:
        for figure in measure(given.quick):
            figures.append(dataclasses.asdict(figure))
            cells = (figure.value, figure.peer_value, figure.ratio)
            value, peer_value, ratio = ("" if cell is None else f"{cell:,.4g}" for cell in cells)
            table.add_row(figure.metric, value, figure.unit, figure.peer, peer_value, ratio)
    Console(width=160).print(table)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
