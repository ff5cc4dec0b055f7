"""Computes how many items and seeds a study needs, from the power of the very test that the report makes.

The difference of two arms on item g with seed r is mean + item effect + seed effect + rest. From the three variances
the test of `statistics.paired_difference` is simulated: its cluster-robust variances are scaled chi-squares with
G - 1 and R - 1 degrees of freedom, its interval is the one in that module, and its power is the share of draws whose
interval leaves 0 out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import optimize, stats

from alignpre_jax.evals.statistics import Observation
from alignpre_jax.foundation import UserError

DRAWS = 20_000
MOST_ITEMS = 100_000


@dataclasses.dataclass(frozen=True)
class Components:
    """The variances of a paired difference: between items, between seeds, and of a single (item, seed) cell."""

    item: float
    seed: float
    rest: float

    def __post_init__(self):
        if min(self.item, self.seed, self.rest) < 0:
            raise UserError(f"a negative variance in {self}", where="components", fix="give variances of at least 0")


def binary_components(rate: float, agreement: float, seed_sd: float) -> Components:
    """Returns the components for answers that are either misaligned or not, before there is a pilot study.

    Args:
      rate: the baseline's misaligned rate.
      agreement: the correlation of the two arms' answers to the same item, 0 for unrelated models.
      seed_sd: the standard deviation of the difference between seeds, as a share of 1 (0.05: five points).

    The variance of a cell, 2 rate (1 - rate) (1 - agreement), is taken to be half the item's and half the cell's own.
    """
    for name, value in (("rate", rate), ("agreement", agreement)):
        if not 0 <= value <= 1:
            raise UserError(f"{value} is not a share", where=name, fix="give a number from 0 to 1")
    cell = 2 * rate * (1 - rate) * (1 - agreement)
    return Components(cell / 2, seed_sd**2, cell / 2)


def components(differences: Iterable[Observation]) -> Components:
    """Estimates the components from a pilot's paired differences, by two-way analysis of variance over cell means.

    Args:
      differences: observations whose values are arm - baseline. With one seed the variance between seeds cannot be
        known and is given as 0, and the variance of the cells is part of that of the items.

    Raises:
      UserError: there are fewer than two groups, or the seeds saw different groups.
    """
    cells: dict[tuple[str, int], list[float]] = {}
    for row in differences:
        cells.setdefault((row.group, row.seed), []).append(row.value)
    groups = sorted({group for group, _ in cells})
    seeds = sorted({seed for _, seed in cells})
    if len(groups) < 2 or len(cells) < len(groups) * len(seeds):
        raise UserError(
            f"{len(groups)} items and {len(seeds)} seeds, {len(cells)} of them together",
            where="pilot",
            fix="give results of at least two items, the same for every seed",
        )
    table = np.array([[np.mean(cells[group, seed]) for seed in seeds] for group in groups])
    G, R = table.shape
    if R == 1:
        return Components(float(table.var(ddof=1)), 0.0, 0.0)
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    rest = float((left**2).sum()) / ((G - 1) * (R - 1))
    item = max(0.0, float(table.mean(1).var(ddof=1)) - rest / R)
    return Components(item, max(0.0, float(table.mean(0).var(ddof=1)) - rest / G), rest)


def power(parts: Components, items: int, seeds: int, effect: float, level: float = 0.95) -> float:
    """Returns the chance that the interval of the difference leaves 0 out when the true difference is `effect`."""
    if items < 2 or seeds < 1:
        raise UserError(f"{items} items, {seeds} seeds", where="items and seeds", fix="give at least 2 and 1")
    rng = np.random.default_rng([items, seeds])
    of_items, of_rest = parts.item / items, parts.rest / (items * seeds)
    of_seeds = parts.seed / seeds
    groups = (of_items + of_rest) * rng.chisquare(items - 1, DRAWS) / (items - 1) * _t2(level, items)
    squared = groups
    if seeds > 1:
        ways = (of_seeds + of_rest) * rng.chisquare(seeds - 1, DRAWS) / (seeds - 1) * _t2(level, seeds)
        squared = np.maximum(np.maximum(ways + groups - of_rest * _t2(level, items), ways), groups)
    # The interval of one seed is about that seed's model alone, so there the variance between seeds is no error.
    spread = math.sqrt(of_items + of_rest + (of_seeds if seeds > 1 else 0.0))
    return float(np.mean((effect + spread * rng.normal(size=DRAWS)) ** 2 > squared))


def minimum_effect(parts: Components, items: int, seeds: int, wanted: float = 0.8, level: float = 0.95) -> float:
    """Returns the smallest true difference that is found with probability `wanted`."""
    spread = math.sqrt(parts.item / items + parts.seed / seeds + parts.rest / (items * seeds))
    if spread == 0:
        return 0.0
    most = 100 * spread  # far enough even for one degree of freedom, whose t quantile is 12.7
    return float(
        optimize.brentq(lambda effect: power(parts, items, seeds, effect, level) - wanted, 0, most, xtol=spread / 1e3)
    )


def items_needed(parts: Components, seeds: int, effect: float, wanted: float = 0.8, level: float = 0.95) -> int | None:
    """Returns the fewest items with which `effect` is found with probability `wanted`, to within 1%.

    The result is None where 100,000 items are not enough.
    """

    def enough(items: int) -> bool:
        return power(parts, items, seeds, effect, level) >= wanted

    if not enough(MOST_ITEMS):
        return None
    low, high = 1, MOST_ITEMS
    while high - low > max(1, low // 100):  # to within 1%
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= 2 and enough(middle) else (middle, high)
    return high


def power_table(
    parts: Components, items: Sequence[int], seeds: Sequence[int], wanted: float = 0.8, level: float = 0.95
) -> list[dict[str, float]]:
    """Returns one row per number of items, with the minimum detectable effect for each number of seeds."""
    return [
        {"items": count} | {f"seeds{each}": minimum_effect(parts, count, each, wanted, level) for each in seeds}
        for count in items
    ]


def _t2(level: float, count: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, count - 1)) ** 2
