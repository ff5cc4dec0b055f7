"""This module aligns plain-text tables."""

from __future__ import annotations

from collections.abc import Sequence


def align(table: Sequence[Sequence[str]]) -> str:
    """Returns lines of cells, of which the first has the heads, as a text of columns; numbers are flush right.

    The first column is flush left, whatever is in it.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    number = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*table, strict=True)]
    number[0] = False
    lines = []
    for line in table:
        cells = zip(line, widths, number, strict=True)
        lines.append("  ".join(cell.rjust(wide) if right else cell.ljust(wide) for cell, wide, right in cells).rstrip())
    return "\n".join(lines)
