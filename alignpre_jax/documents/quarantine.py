"""Records that cannot be read are counted, kept with their place and reason, and never silently many."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from etils import epath

from alignpre_jax.foundation import PathLike, UserError, canonical_json, disk_errors

_EARLY = 1000  # from this many records on, reading stops at once when too many are bad
_KEPT = 1000  # how many cases are in memory; all of them are in a temporary file
_REASON_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Case:
    """A `Case` is a record that was left out, or `records` consecutive ones.

    `line` counts the lines of a text file or the rows of a table from 1; 0 stands for the whole file.
    """

    file: str
    line: int
    reason: str
    records: int = 1

    @property
    def place(self) -> str:
        """The place as file:line, as editors understand it."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclasses.dataclass
class Quarantine:
    """A `Quarantine` collects what could not be read, and stops when it is more than `max_share` of the records.

    Memory stays bounded however many cases there are: the first thousand are at hand in `cases`, and all of them are
    spooled to a temporary file, from which iteration and `write` read them.

    Attributes:
      max_share: the largest acceptable share of bad records among all records read so far.
      where: the config key that sets `max_share`, for the message.
      records: how many records were read, good and bad.
      bad: how many of them were left out.
      cases: the first cases, in the order found.
    """

    max_share: float = 0.01
    where: str = "data.max_bad_share"
    records: int = 0
    bad: int = 0
    cases: list[Case] = dataclasses.field(default_factory=list)
    _spool: IO[bytes] | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def accept(self) -> None:
        """Counts a good record."""
        self.records += 1

    def refuse(self, file: str, line: int, reason: str, records: int = 1) -> None:
        """Counts and keeps a bad record, or several; from 1,000 records on raises `UserError` if too many are bad."""
        self.records += records
        self._add(Case(file, line, reason[:_REASON_CHARACTERS], records))

    def withdraw(self, file: str, line: int, reason: str) -> None:
        """Turns an accepted record into a bad one, for example when its id proves to be taken."""
        self._add(Case(file, line, reason[:_REASON_CHARACTERS]))

    def absorb(self, other: Quarantine) -> None:
        """Adds what another quarantine has counted and kept, as if its records had been read here next."""
        self.records += other.records
        for case in other:
            self._add(case)

    def check(self) -> None:
        """Raises `UserError` with the first cases if more than `max_share` of the records are bad."""
        if self.bad <= self.max_share * self.records:
            return
        shown = "".join(f"\n    {case.place}: {case.reason}" for case in self.cases[:5])
        left = self.bad - sum(case.records for case in self.cases[:5])
        more = f"\n    and {left:,} more" if left else ""
        raise UserError(
            f"{self.bad:,} of {self.records:,} records cannot be used:{shown}{more}",
            where=self.where,
            fix=f"mend them, or accept that they are left out by raising {self.where} from {self.max_share}",
        )

    def __iter__(self) -> Iterator[Case]:
        """Yields all cases, in the order found."""
        if self._spool is None:
            return
        self._spool.seek(0)
        lines = iter(self._spool.readline, b"")
        for place, line in enumerate(lines):
            yield self.cases[place] if place < len(self.cases) else Case(**json.loads(line))

    def write(self, path: PathLike) -> None:
        """Writes all cases as JSON Lines, whole or not at all: {"file", "line", "reason", "records"}."""
        place = epath.Path(path)
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            part: Any = place
            if "://" not in os.fspath(place):  # an object store shows whole objects only
                part = Path(place.parent) / f".{place.name}.{os.getpid()}.part"
            with part.open("wb") as file:
                if self._spool is not None:
                    self._spool.seek(0)
                    shutil.copyfileobj(self._spool, file)
            if part is not place:
                os.replace(part, place)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state with all cases, so that a process that reads some of the files can hand its quarantine
        back.
        """
        state = dict(self.__dict__, cases=list(self))
        state.pop("_spool", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        counted, cases = state["records"], state["cases"]
        self.__dict__.update(state, bad=0, cases=[], records=0, _spool=None)
        for case in cases:
            self._keep(case)
        self.records = counted

    def _add(self, case: Case) -> None:
        self._keep(case)
        if self.records >= _EARLY:
            self.check()

    def _keep(self, case: Case) -> None:
        self.bad += case.records
        if len(self.cases) < _KEPT:
            self.cases.append(case)
        if self._spool is None:
            self._spool = tempfile.TemporaryFile(prefix="alignpre-quarantine-")  # noqa: SIM115
        self._spool.seek(0, os.SEEK_END)
        self._spool.write(canonical_json(case).encode("utf-8", "backslashreplace") + b"\n")
