"""This module shows progress: a live line per task on a terminal, and elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alignpre_jax.foundation import Event

PLAIN_SECONDS = 15  # between two lines about one task where there is no terminal


class Terminal:
    """A context manager that is also a `Report`."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, highlight=False)
        self._live = self.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> Terminal:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Shows one event."""
        figures = "  ".join(_figure(name, value) for name, value in event.figures.items())
        finished = event.total > 0 and event.done >= event.total
        if self._live:
            self._show(event, figures, finished)
        elif finished or time.monotonic() - self._said.setdefault(event.task, time.monotonic()) > PLAIN_SECONDS:
            self._said[event.task] = time.monotonic()
            self.console.print(f"{escape(event.task)}  {_count(event)}  {figures}".rstrip(), soft_wrap=True)
        if event.note:
            self.console.print(f"[dim]{escape(event.note)}[/dim]", soft_wrap=True)

    def _show(self, event: Event, figures: str, finished: bool) -> None:
        if event.task not in self._tasks:
            self._tasks[event.task] = self._progress.add_task(escape(event.task), total=None, figures="")
        task = self._tasks[event.task]
        self._progress.update(task, completed=event.done, total=event.total or None, figures=figures)
        if finished:
            self._progress.remove_task(self._tasks.pop(event.task))
            self.console.print(f"[green]done[/green]  {escape(event.task)}  {figures}", soft_wrap=True)


def _count(event: Event) -> str:
    return f"{event.done:,}/{event.total:,}" if event.total else f"{event.done:,}" if event.done else ""


def _figure(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.3f}"
