"""All targets share this queue: tasks wait for the tasks they need, and slots take one task after another."""

from __future__ import annotations

import collections
import dataclasses
import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

from alignpre_jax.foundation import Event, Report, UserError

State = Literal["waiting", "running", "done", "failed", "blocked"]


@dataclasses.dataclass
class Entry:
    """How far one task is. It is `blocked` when a task that it needs has failed or is blocked."""

    needs: frozenset[str]
    state: State = "waiting"
    attempts: int = 0
    started: float = 0.0  # Unix seconds
    ended: float = 0.0
    note: str = ""  # what a remote machine is doing, or why the task failed


class Board:
    """The state of all tasks. The next one is, of those that can start, the one with the longest chain behind it.

    Args:
      needs: the tasks that each task waits for, in an order in which every task follows its needs. A need that is not
        itself a task here is taken to be done.
      changed: called after every change of a task's state or note.
    """

    def __init__(self, needs: Mapping[str, Collection[str]], changed: Callable[[Board], None] = lambda board: None):
        self.entries = {
            name: Entry(frozenset(need for need in found if need in needs)) for name, found in needs.items()
        }
        self._height = _heights(self.entries)
        self._changed = changed

    def take(self) -> str | None:
        """Marks the next task that can start as running and returns its name; None where no task can start."""
        ready = [
            name
            for name, entry in self.entries.items()
            if entry.state == "waiting" and all(self.entries[need].state == "done" for need in entry.needs)
        ]
        if not ready:
            return None
        name = max(ready, key=self._height.__getitem__)
        entry = self.entries[name]
        entry.state, entry.attempts, entry.started = "running", entry.attempts + 1, time.time()
        self._changed(self)
        return name

    def done(self, *names: str) -> None:
        """Marks tasks as finished."""
        for name in names:
            self.entries[name].state, self.entries[name].ended, self.entries[name].note = "done", time.time(), ""
        self._changed(self)

    def again(self, name: str, why: str) -> None:
        """Puts a task back into the queue."""
        self.entries[name].state, self.entries[name].note = "waiting", why
        self._changed(self)

    def failed(self, name: str, why: str) -> None:
        """Marks a task as failed, and the tasks that need it as blocked."""
        entry = self.entries[name]
        entry.state, entry.ended, entry.note = "failed", time.time(), why
        for other in self.entries.values():  # in order, so that a blocked task blocks those after it
            if other.state == "waiting" and any(self.entries[n].state in ("failed", "blocked") for n in other.needs):
                other.state = "blocked"
        self._changed(self)

    def say(self, name: str, note: str) -> None:
        """Notes what a running task is doing."""
        if self.entries[name].note != note:
            self.entries[name].note = note
            self._changed(self)

    def count(self, *states: State) -> int:
        """Counts the tasks that are in one of the states."""
        return sum(entry.state in states for entry in self.entries.values())


class Slot(Protocol):
    """A slot does one task at a time, and sends what happens to it as `Messages`."""

    def start(self, name: str) -> None:
        """Begins a task and returns at once."""

    def recover(self) -> None:
        """Makes the slot ready for another task after one has failed."""


# (slot, what happened): {"event": ...}, {"note": text}, {"done": name}, {"user_error": {...}} or {"crashed": text}
Messages = queue.Queue[tuple[Slot, dict[str, Any]]]


def drain(
    board: Board, slots: Sequence[Slot], messages: Messages, report: Report, *, keep_going: bool, attempts: int = 1
) -> None:
    """Does all tasks.

    Args:
      board: the tasks.
      slots: the slots that do them.
      messages: the queue of messages from the slots.
      report: is told of progress.
      keep_going: whether the other tasks go on when one fails; those that need it are blocked.
      attempts: how often a task is tried if it crashes; a user's mistake is not tried again.

    Raises:
      UserError: a task failed, at once or, with `keep_going`, when nothing else can be done.
    """
    doing: dict[int, str] = {}
    errors: dict[str, UserError] = {}
    while True:
        for index, slot in enumerate(slots):
            if index not in doing and (name := board.take()) is not None:
                doing[index] = name
                slot.start(name)
        if not doing:
            break
        sender, message = messages.get()
        index = next(index for index, slot in enumerate(slots) if slot is sender)
        match message:
            case {"event": event}:
                report(Event(**event))
            case {"note": note} if index in doing:
                board.say(doing[index], note)
            case {"done": name} if doing.get(index) == name:
                del doing[index]
                board.done(name)
            case {"user_error": error} if index in doing:
                name = doing.pop(index)
                errors[name] = UserError(**error)
                board.failed(name, error["what"].splitlines()[0])
                _go_on(keep_going, errors[name], slot=sender)
            case {"crashed": text} if index in doing:
                name = doing.pop(index)
                if board.entries[name].attempts < attempts:
                    report(Event(name, note=f"{name}: {text.splitlines()[0]}; tried again"))
                    board.again(name, text.splitlines()[0])
                    sender.recover()
                    continue
                fix = "finished work is kept: mend the cause and run the same command again"
                errors[name] = UserError(f"{text.splitlines()[0]} while running {name}", where=_rest(text), fix=fix)
                board.failed(name, text.splitlines()[0])
                _go_on(keep_going, errors[name], slot=sender)
    if errors:
        first = next(iter(errors.values()))
        if len(errors) == 1 and not board.count("blocked"):
            raise first
        counts = collections.Counter(entry.state for entry in board.entries.values())
        failed = f"{counts['failed']} failed ({', '.join(errors)})"
        what = f"{counts['done']} tasks done, {failed}, {counts['blocked']} wait for them"
        raise UserError(f"{what}; the first:\n{first.what}", where=first.where, fix=first.fix)


def _go_on(keep_going: bool, error: UserError, slot: Slot) -> None:
    if not keep_going:
        raise error
    slot.recover()


def _rest(text: str) -> str:
    return "\n".join(text.splitlines()[1:])


def _heights(entries: Mapping[str, Entry]) -> dict[str, int]:
    """For each task the length of the longest chain of tasks that wait for it."""
    heights = dict.fromkeys(entries, 0)
    for name in reversed(list(entries)):
        for need in entries[name].needs:
            heights[need] = max(heights[need], heights[name] + 1)
    return heights
