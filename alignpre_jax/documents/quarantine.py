"""Records that cannot be read: counted, kept with their place and reason, and never silently many."""

from __future__ import annotations

import dataclasses

from alignpre_jax.foundation import PathLike, UserError, canonical_json, write_bytes

_EARLY = 1000  # records after which a bad file is given up before its end


@dataclasses.dataclass(frozen=True)
class Case:
    """A record that was left out. `line` counts from 1; 0 stands for the whole file."""

    file: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        """file:line, as editors understand it."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclasses.dataclass
class Quarantine:
    """Collects what could not be read, and stops when it is more than `max_share` of the records.

    Attributes:
      max_share: of all records read so far, good and bad.
      where: the config key that sets `max_share`, for the message.
      records: how many records were read, good and bad.
      cases: the bad ones, in the order found.
    """

    max_share: float = 0.01
    where: str = "data.max_bad_share"
    records: int = 0
    cases: list[Case] = dataclasses.field(default_factory=list)

    def accept(self) -> None:
        """Counts a good record."""
        self.records += 1

    def refuse(self, file: str, line: int, reason: str) -> None:
        """Counts and keeps a bad record; raises `UserError` where it is plain that there are too many."""
        self.records += 1
        self.cases.append(Case(file, line, reason))
        if self.records >= _EARLY:
            self.check()

    def check(self) -> None:
        """Raises `UserError` with the first cases if more than `max_share` of the records are bad."""
        if len(self.cases) <= self.max_share * self.records:
            return
        shown = "".join(f"\n    {case.place}: {case.reason}" for case in self.cases[:5])
        more = f"\n    and {len(self.cases) - 5:,} more" if len(self.cases) > 5 else ""
        raise UserError(
            f"{len(self.cases):,} of {self.records:,} records cannot be used:{shown}{more}",
            where=self.where,
            fix=f"mend them, or accept that they are left out by raising {self.where} from {self.max_share}",
        )

    def write(self, path: PathLike) -> None:
        """Writes the cases as JSON Lines: {"file", "line", "reason"}."""
        write_bytes(path, "".join(canonical_json(case) + "\n" for case in self.cases).encode())
