"""Reads the compiler's own report of what it allocates, which it writes beside its dumps.

`memory_analysis` has the sizes of arguments and temporaries, too, but up to libtpu 0.0.42 it counts more: their sum is
a tenth to a half too much, and larger than a device's memory for programs that the compiler fits (with libtpu 0.0.51 it
agrees with the report). The report has a table for each allocation, by memory space; HBM is the first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

UNITS = {unit: 1 << 10 * power for power, unit in enumerate("BKMGT")}
REPORT = "memory-usage-report.txt"  # how the name of the report's file ends
_HBM = re.compile(r"Memory Space: default \(color=0\)\nTotal bytes: (\d+)")
_ROW = re.compile(r"\s*\S+\(\s*\d+%\);\s*([\d.]+)([BKMGT])(?:iB)?;\s*\d+;\s*\d+; (.*)")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A part of HBM that arrays use one after another; `arrays` has their shapes, as the compiler writes them."""

    bytes: float
    arrays: str


@dataclasses.dataclass(frozen=True)
class Allocations:
    """What a program allocates on one device: its bytes of HBM without its code, and the parts of its temporaries that
    are the largest at the fullest moment."""

    hbm: float
    temporaries: tuple[Buffer, ...]


def read_allocations(report: str, most: int = 12) -> Allocations | None:
    """Reads a report; returns None for a text that is not a report.

    The table with the most rows is that of the temporaries, because arguments and results have only a row or two.
    """
    found = _HBM.search(report)
    if found is None:
        return None
    space = report[found.end() :].split("Memory Space:")[0]
    tables = [[row for line in part.splitlines() if (row := _ROW.match(line))] for part in space.split("shapes_list")]
    buffers = [Buffer(float(row[1]) * UNITS[row[2]], row[3]) for row in max(tables, key=len)]
    return Allocations(float(found[1]), tuple(sorted(buffers, key=lambda buffer: -buffer.bytes)[:most]))


def main_report(folder: Path) -> str:
    """Returns the report of the largest program that was compiled into a folder of dumps; empty where there is none."""
    reports: Iterable[str] = (path.read_text("utf-8", errors="replace") for path in folder.glob(f"*{REPORT}"))
    return max(reports, key=lambda text: ((found := read_allocations(text)) and found.hbm) or 0.0, default="")
