"""This module is how a long piece of work says how far it has come.

Rooms call a `Report` now and then; who shows it (a live terminal line, a log, the parent
process) is decided at the edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Event:
    """One sign of life: `done` of `total` units of `task`, with figures worth showing.

    `figures` holds e.g. loss and tokens_per_second; `note` is a line to keep on the screen.
    """

    task: str
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""


Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """A `Report` that shows nothing."""
    del event
