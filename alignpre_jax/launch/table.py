"""This module shows the state of an experiment as a table, and keeps it in state.json."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from rich.table import Table

from alignpre_jax.foundation import PathLike, read_json, write_json
from alignpre_jax.launch.experiment import Experiment
from alignpre_jax.launch.queue import Board
from alignpre_jax.study import Workspace, is_done

STATE = "state.json"
SHOWN = 60  # rows; a longer table leaves out the tasks that are done, which its title counts
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow", "stopped": "yellow"}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training run is, over all its starts.

    `goodput` is the share of the time since the first start in which steps were computed that still count.
    """

    step: int
    loss: float | None
    goodput: float
    restarts: int


def run_progress(run_dir: PathLike) -> Progress | None:
    """Reads a run's progress from metrics.jsonl and events.jsonl in its folder; None before the first logged step."""
    metrics, events = epath.Path(run_dir) / "metrics.jsonl", epath.Path(run_dir) / "events.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")] if metrics.exists() else []
    if not lines:
        return None
    last = json.loads(lines[-1])
    starts = sum('"event":"start"' in line for line in events.read_text().splitlines()) if events.exists() else 1
    return Progress(last["step"], last["loss"], last.get("goodput", 0.0), max(starts - 1, 0))


class StateFile:
    """Keeps WORKDIR/state.json up to date as the board changes; it is written at most once a second, and at the end."""

    def __init__(self, root: epath.Path):
        self._path, self._written = root / STATE, 0.0

    def __call__(self, board: Board) -> None:
        """Writes the board's state, unless the last time was less than a second ago and work is left."""
        settled = not board.count("running", "waiting")
        if settled or time.monotonic() - self._written > 1:
            write_json(self._path, to_json(board))
            self._written = time.monotonic()


def to_json(board: Board) -> dict[str, Any]:
    """The state of every task by its name."""
    skipped = ("needs",)
    return {
        name: {key: value for key, value in dataclasses.asdict(entry).items() if key not in skipped}
        for name, entry in board.entries.items()
    }


def local_table(experiment: Experiment) -> Table:
    """A table of the tasks of an experiment in a folder of this machine, from what is on disk and in state.json."""
    path = experiment.root / STATE
    saved = read_json(path) if path.exists() else {}
    at_work = is_locked(experiment.root)
    rows = []
    for task in experiment.tasks.values():
        entry = saved.get(task.id, {})
        state = entry.get("state", "waiting")
        if is_done(task.space, task.job):
            state = "done"
        elif not at_work and state in ("running", "done"):
            state = "stopped"
        rows.append((task.id, state, entry, _progress(task.space, task.job.run if task.job.kind == "train" else "")))
    return render(experiment.name, rows)


def board_table(name: str, states: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    """A table of the bundles of a cloud target, from state.json."""
    return render(name, [(labels.get(key, key), entry["state"], entry, None) for key, entry in states.items()])


def render(name: str, rows: list[tuple[str, str, Mapping[str, Any], Progress | None]]) -> Table:
    """Makes a rich table of rows (task, state, entry of state.json, progress)."""
    counts = {state: sum(row[1] == state for row in rows) for state in dict.fromkeys(row[1] for row in rows)}
    title = f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    table = Table(title=title, title_justify="left", header_style="")
    for column in ("task", "state", "tries", "minutes", "step", "loss", "goodput", "restarts", ""):
        table.add_column(column, justify="left" if column in ("task", "state", "") else "right", overflow="fold")
    for task, state, entry, progress in rows:
        if len(rows) > SHOWN and state == "done":
            continue
        ended = entry.get("ended") or (time.time() if state == "running" else 0)
        minutes = f"{(ended - entry['started']) / 60:.1f}" if entry.get("started") and ended else ""
        figures = ["", "", "", ""]
        if progress is not None:
            loss = "" if progress.loss is None else f"{progress.loss:.3f}"
            figures = [f"{progress.step:,}", loss, f"{100 * progress.goodput:.0f}%", str(progress.restarts)]
        colour = _COLOURS.get(state, "dim")
        table.add_row(
            task,
            f"[{colour}]{state}[/{colour}]",
            str(entry.get("attempts") or ""),
            minutes,
            *figures,
            entry.get("note", ""),
        )
    return table


def is_locked(root: PathLike) -> bool:
    """Whether a process is at work in the folder."""
    path = epath.Path(root) / ".lock"
    if not path.exists():
        return False
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _progress(space: Workspace, run: str) -> Progress | None:
    return run_progress(space.run_dir(run)) if run else None


def summary(experiment: Experiment) -> Table:
    """A table with one line per point, stage and arm of a finished experiment, from the reports."""
    table = Table(title=f"{experiment.name}: misaligned rate [95% interval]", title_justify="left", header_style="")
    reports = {name: read_json(space.root / "report.json") for name, space in experiment.spaces.items()}
    splits = list(dict.fromkeys(split for report in reports.values() for split in report["splits"]))
    several = any(len(report["nodes"]) > 1 for report in reports.values())
    for column in ("point", *(["stage"] if several else []), "arm", *splits):
        table.add_column(column, justify="right" if column in splits else "left", overflow="fold")
    for name, report in reports.items():
        point = ", ".join(f"{key}={value}" for key, value in experiment.points[name].items())
        for stage, node in report["nodes"].items():
            for arm, found in node["arms"].items():
                cells = [_rate(found[split]) if split in found else "" for split in splits]
                table.add_row(point, *([stage] if several else []), arm, *cells)
    return table


def _rate(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{100 * found['misaligned_rate']:.1f}% [{100 * low:.0f}, {100 * high:.0f}]"
