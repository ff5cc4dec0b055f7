"""Shares of a mixture, exactly as written, and whole rows dealt out by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError, exact, suggest


def parse_shares(
    shares: str | Mapping[str, Any], *, where: str = "shares", known: Iterable[str] | None = None
) -> dict[str, Fraction]:
    """The exact share of each store, from `"web/plain:0.95,web/ai:0.05"` or a mapping.

    A share is a number or a text such as `0.05`, `1e-5` or `1/3`, and means exactly what is
    written: 0.01 is 1/100. The order of the stores is kept.

    Args:
      shares: the text or the mapping.
      where: the config key to name in an error.
      known: the names that exist; any name when None.

    Raises:
      UserError: a share that is no number in [0, 1], an unknown or repeated store, or a sum that is not 1.
    """
    pairs = _pairs(shares, where) if isinstance(shares, str) else list(shares.items())
    names = None if known is None else tuple(known)
    parsed: dict[str, Fraction] = {}
    for name, value in pairs:
        if name in parsed:
            raise UserError(f"{name!r} is given twice", where=where, fix="give each store once, with its whole share")
        if names is not None and name not in names:
            raise UserError(f"unknown store {name!r}", where=f"{where}.{name}", fix=suggest(name, names))
        parsed[name] = parse_share(value, where=f"{where}.{name}")
    if not parsed:
        raise UserError("the mixture is empty", where=where, fix="name at least one store, e.g. web:1")
    total = sum(parsed.values(), Fraction(0))
    if total != 1:
        listed = " + ".join(f"{name}:{decimal(share)}" for name, share in parsed.items())
        gap = decimal(abs(total - 1))
        fix = f"take {gap} away from one of them" if total > 1 else f"add {gap} to one of them"
        raise UserError(f"the shares add up to {decimal(total)}, not 1: {listed}", where=where, fix=fix)
    return parsed


def parse_share(value: Any, *, where: str) -> Fraction:
    """One exact number in [0, 1]; anything else raises `UserError` naming `where`."""
    try:
        share = exact(value)
    except (ValueError, ZeroDivisionError):
        fix = "give a number in [0, 1], e.g. 0.01, 1e-5 or 1/3"
        raise UserError(f"{value!r} is not a share", where=where, fix=fix) from None
    if not 0 <= share <= 1:
        raise UserError(f"{decimal(share)} is not in [0, 1]", where=where, fix="shares are parts of 1, not percentages")
    return share


def decimal(share: Fraction) -> str:
    """A share as people write it: a decimal where that is exact and short, else a fraction."""
    text = f"{float(share):.12g}"
    return text if Fraction(text) == share else str(share)


def round_half_up(value: Fraction) -> int:
    """The nearest integer; a half goes up, so that the result never falls when `value` rises."""
    return int((value + Fraction(1, 2)) // 1)


def apportion(weights: NDArray[np.int64], amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deals each amount out by the largest-remainder (Hamilton) method, in exact integers.

    Every store gets the floor of its ideal; what is left goes, one each, to the largest
    remainders, ties to the store that comes first. So |count - ideal| < 1.

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
    counts = times * weights_S1 + more
    rank = (over - more * whole) * len(weights) - np.arange(len(weights))[:, None]
    left = amounts - counts.sum(axis=0)
    for count, own in zip(counts, rank, strict=True):
        count += (rank > own).sum(axis=0) < left
    return counts.astype(np.int64)


def _pairs(text: str, where: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, share = part.rpartition(":")
        if not colon or not name.strip():
            raise UserError(f"{part!r} is not STORE:SHARE", where=where, fix="write e.g. web:0.99,aligned:0.01")
        pairs.append((name.strip(), share.strip()))
    return pairs
