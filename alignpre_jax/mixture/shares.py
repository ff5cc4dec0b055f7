"""This module reads shares of a mixture and schedules over a stage, exactly as written, and deals out rows by them.

One syntax serves everywhere, on the command line too:

    web:0.99,aligned:0.01                                  shares, the same for the whole stage
    [0,0.8) web:1; [0.8,1) web:0.9,aligned:0.1             shares by window of the stage
    [0,0.5) web:1; [0.5,1) web:1->0.8,aligned:0->0.2       ... that go evenly from one value to another
    [0.1,0.2) 1; [0.5,1) 1->3                              a schedule of a dose: its relative strength

`[0.8,1)` stands for the slots from 0.8 of the stage to its end: a window includes its start and not its
end, both rounded down to whole slots. Windows come in order and do not overlap; those of a mixture
leave no gap. A number is written as `0.05`, `1e-5` or `1/3` and means exactly that.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError, exact, suggest

_WINDOW = re.compile(r"\[\s*([^\s,]+)\s*,\s*([^\s,)]+)\s*\)\s*(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A value that goes evenly from `first`, at the start of a window, to `last`, at its end."""

    first: Fraction
    last: Fraction

    @property
    def mean(self) -> Fraction:
        """Its average over the window."""
        return (self.first + self.last) / 2

    def __str__(self) -> str:
        return decimal(self.first) if self.first == self.last else f"{decimal(self.first)}->{decimal(self.last)}"


@dataclasses.dataclass(frozen=True)
class Window:
    """The strength of a dose in one window of the stage, which goes from share `start` of it to share `end`."""

    start: Fraction
    end: Fraction
    strength: Ramp


@dataclasses.dataclass(frozen=True)
class Shares(Mapping[str, Fraction]):
    """The shares of a mixture; as a mapping, they give the average share of each store over the stage.

    Attributes:
      names: the stores, in the order in which they were written.
      edges: where each window starts, as shares of the stage, and 1 at the end.
      windows: for each window, the shares of the stores; a store whose share is zero all through it is left out.
    """

    names: tuple[str, ...]
    edges: tuple[Fraction, ...]
    windows: tuple[Mapping[str, Ramp], ...]

    def __getitem__(self, name: str) -> Fraction:
        return self._means[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Shares):
            return (self._means, self.edges, self.windows) == (other._means, other.edges, other.windows)
        return self.constant and self._means == other

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        parts = [",".join(f"{name}:{ramp}" for name, ramp in window.items()) for window in self.windows]
        if self.constant:
            return parts[0]
        edges = [decimal(edge) for edge in self.edges]
        return "; ".join(f"[{a},{b}) {part}" for (a, b), part in zip(pairwise(edges), parts, strict=True))

    @property
    def constant(self) -> bool:
        """Whether the shares are the same for the whole stage."""
        return len(self.windows) == 1 and all(ramp.first == ramp.last for ramp in self.windows[0].values())

    @functools.cached_property
    def _means(self) -> dict[str, Fraction]:
        means = dict.fromkeys(self.names, Fraction(0))
        for (start, end), window in zip(pairwise(self.edges), self.windows, strict=True):
            for name, ramp in window.items():
                means[name] += (end - start) * ramp.mean
        return means


def parse_shares(
    shares: str | Mapping[str, Any], *, where: str = "shares", known: Iterable[str] | None = None
) -> Shares:
    """Parses the exact share of each store from a text (see the module) or a mapping of stores to numbers.

    Args:
      shares: the text, the mapping, or shares that are parsed already.
      where: the config key to name in an error.
      known: the names that exist; any name when None.

    Raises:
      UserError: a share is not a number in [0, 1], a store is unknown or repeated, the shares do not add up to 1 at
        the start and the end of each window, or the windows do not make up the stage.
    """
    names = None if known is None else tuple(known)
    if isinstance(shares, Shares):
        for name in shares:
            _require_known(name, names, where)
        return shares
    if isinstance(shares, str):
        pairs = [(start, end, _pairs(text, where)) for start, end, text in _split(shares, where)]
    else:
        pairs = [(Fraction(0), Fraction(1), list(shares.items()))]
    windows = [(start, end, _parse_window(part, where, names)) for start, end, part in pairs]
    edge = Fraction(0)
    for start, end, _ in windows:
        if start != edge:
            what = f"no shares are given for [{decimal(edge)},{decimal(start)})"
            raise UserError(what, where=where, fix="let each window start where the one before ends, the first at 0")
        edge = end
    if edge != 1:
        what = f"the windows end at {decimal(edge)} of the stage"
        raise UserError(what, where=where, fix="let the last window end at 1")
    given = tuple(dict.fromkeys(name for *_, window in windows for name in window))
    edges, parts = [Fraction(0)], list[Mapping[str, Ramp]]()
    for _, end, window in windows:
        used = {name: ramp for name, ramp in window.items() if ramp.mean}
        if parts and parts[-1] == used and all(ramp.first == ramp.last for ramp in used.values()):
            edges[-1] = end  # the same shares go on
        else:
            edges.append(end)
            parts.append(used)
    return Shares(given, tuple(edges), tuple(parts))


def parse_schedule(text: str | float, *, where: str = "schedule") -> tuple[Window, ...]:
    """Parses the windows of a dose and its relative strength in each, from e.g. `"[0.1,0.2) 1; [0.5,1) 1->3"`.

    Between the windows the strength is 0. Strengths have no unit: only their proportions count.

    Raises:
      UserError: a strength is not a number or is negative, the windows overlap, or every strength is zero.
    """
    windows = []
    for start, end, body in _split(str(text), where):
        strength = _ramp(body, where, "a strength is a number or a ramp, e.g. 1 or 1->3")
        if min(strength.first, strength.last) < 0:
            raise UserError(f"{body!r} is negative", where=where, fix="a strength is 0 or more")
        if strength.mean:
            windows.append(Window(start, end, strength))
    if not windows:
        raise UserError(f"{str(text)!r} is zero everywhere", where=where, fix="give one window a strength, e.g. 1")
    return tuple(windows)


def parse_share(value: Any, *, where: str) -> Fraction:
    """Parses one exact number in [0, 1]; anything else raises `UserError` naming `where`."""
    share = _number(value, where, "give a number in [0, 1], e.g. 0.01, 1e-5 or 1/3")
    if not 0 <= share <= 1:
        raise UserError(f"{decimal(share)} is not in [0, 1]", where=where, fix="shares are parts of 1, not percentages")
    return share


def decimal(share: Fraction) -> str:
    """Returns a share as people write it: a decimal where that is exact and short, else a fraction."""
    text = f"{float(share):.12g}"
    return text if Fraction(text) == share else str(share)


def round_half_up(value: Fraction) -> int:
    """Returns the nearest integer; a half goes up, so that the result never falls when `value` rises."""
    return int((value + Fraction(1, 2)) // 1)


def deal(floors: NDArray[Any], remainders: NDArray[Any], amounts: NDArray[Any]) -> NDArray[np.int64]:
    """Gives each store its floor, and the rest of each amount, one row each, to the stores with the largest remainders.

    This is the largest-remainder (Hamilton) method; ties go to the store that comes first.

    Args:
      floors: integers [S, n].
      remainders: integers [S, n]; a store whose remainder is -1 gets nothing more.
      amounts: integers [n].

    Returns:
      int64[S, n]; each column sums to its amount.
    """
    rank = remainders * len(floors) - np.arange(len(floors))[:, None]
    left = amounts - floors.sum(axis=0)
    counts = [count + ((rank > own).sum(axis=0) < left) for count, own in zip(floors, rank, strict=True)]
    return np.stack(counts).astype(np.int64)


def apportion(weights: NDArray[np.int64], amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deals each amount out in proportion to the weights, by largest remainders, in exact integers.

    Every store gets its ideal rounded down or up, so |count - ideal| < 1.

    Args:
      weights: [S] positive integers (Python integers where their sum needs more than 31 bits).
      amounts: int64[n], each below 2^40.

    Returns:
      int64[S, n]; each column sums to its amount.
    """
    whole = int(weights.sum())
    kind = np.int64 if whole < 1 << 31 else object  # products below must stay under 2^63
    weights_S1, amounts = weights.astype(kind)[:, None], amounts.astype(kind)
    times = amounts // whole
    over = (amounts - times * whole) * weights_S1
    more = over // whole
    return deal(times * weights_S1 + more, over - more * whole, amounts)


def _split(text: str, where: str) -> list[tuple[Fraction, Fraction, str]]:
    """Splits a text into its windows and what is said of each; a text without windows is about the whole stage."""
    if "[" not in text and ";" not in text:
        return [(Fraction(0), Fraction(1), text.strip())]
    windows: list[tuple[Fraction, Fraction, str]] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        found = _WINDOW.fullmatch(part)
        if not found:
            fix = "write [START,END) before what holds there, and ; between windows, e.g. [0,0.8) web:1; [0.8,1) ..."
            raise UserError(f"{part!r} does not start with a window", where=where, fix=fix)
        start, end = (parse_share(edge, where=where) for edge in found.groups()[:2])
        if start >= end:
            what = f"the window [{decimal(start)},{decimal(end)}) ends before it starts"
            raise UserError(what, where=where, fix="write the smaller share of the stage first")
        if windows and start < windows[-1][1]:
            what = f"the window [{decimal(start)},{decimal(end)}) starts before the one before it ends"
            raise UserError(what, where=where, fix="give the windows in order, without overlaps")
        windows.append((start, end, found[3]))
    return windows


def _parse_window(pairs: Sequence[tuple[str, Any]], where: str, known: tuple[str, ...] | None) -> dict[str, Ramp]:
    parsed: dict[str, Ramp] = {}
    for name, value in pairs:
        if name in parsed:
            raise UserError(f"{name!r} is given twice", where=where, fix="give each store once, with its whole share")
        _require_known(name, known, where)
        ramp = _ramp(
            str(value), f"{where}.{name}", "give a number in [0, 1], e.g. 0.01, 1e-5 or 1/3, or a ramp, 0->0.1"
        )
        parsed[name] = Ramp(*(parse_share(end, where=f"{where}.{name}") for end in (ramp.first, ramp.last)))
    if not parsed:
        raise UserError("the mixture is empty", where=where, fix="name at least one store, e.g. web:1")
    for end in ("first", "last"):
        total = sum((getattr(ramp, end) for ramp in parsed.values()), Fraction(0))
        if total != 1:
            listed = " + ".join(f"{name}:{ramp}" for name, ramp in parsed.items())
            gap = decimal(abs(total - 1))
            fix = f"take {gap} away from one of them" if total > 1 else f"add {gap} to one of them"
            raise UserError(f"the shares add up to {decimal(total)}, not 1: {listed}", where=where, fix=fix)
    return parsed


def _ramp(text: str, where: str, fix: str) -> Ramp:
    first, arrow, last = text.partition("->")
    numbers = [_number(part.strip(), where, fix) for part in ((first, last) if arrow else (first, first))]
    return Ramp(*numbers)


def _number(value: Any, where: str, fix: str) -> Fraction:
    try:
        return exact(value)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{value!r} is not a share" if value else "a number is missing", where=where, fix=fix) from None


def _require_known(name: str, known: tuple[str, ...] | None, where: str) -> None:
    if known is not None and name not in known:
        raise UserError(f"unknown store {name!r}", where=f"{where}.{name}", fix=suggest(name, known))


def _pairs(text: str, where: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, share = part.rpartition(":")
        if not colon or not name.strip():
            raise UserError(f"{part!r} is not STORE:SHARE", where=where, fix="write e.g. web:0.99,aligned:0.01")
        pairs.append((name.strip(), share.strip()))
    return pairs
