"""Estimates how much of an effect is left at a later node of the tree, as a ratio of two differences between arms.

Let d_i be the difference arm - baseline of observation i (a scenario's variant and a seed) at the arm's first treated
node, and e_i that of the same observation at a later node. The share left is

    r = mean(e) / mean(d)

Its interval is Fieller's (1954, J. R. Stat. Soc. B 16:175; Franz 2007, arXiv 0710.2024): the set of all r for which the
mean of e_i - r d_i does not differ from 0. That mean has an interval like every mean here (`statistics`: clustered by
situation and by seed, each way with its own t quantile), whose squared half-width is the largest of up to three
quadratic forms in the values. Each form gives

    (mean(e) - r mean(d))^2 <= C - 2 B r + A r^2

with A and C the form's values for d and e, and B its bilinear value for the two. Where the interval of mean(d) leaves 0
out, mean(d)^2 > A for every form, so each solution is an interval between two roots, and their union is the interval of
r. Where it contains 0 the set is unbounded: any share would do, so none is given.

Nothing is assumed about the distribution of a ratio of two noisy means, which has no mean and no variance; the delta
method, which does, gives intervals that are too short when the first effect is weak. Simulated coverage of the nominal
95% interval, for first effects of 5 to 24 standard errors: 98% at 3 seeds, 96% at 8, 99% at 2 (where half of the first
effects of 6 standard errors are not clear, and no share is given).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from alignpre_jax.evals.statistics import Observation, Table
from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class Retention:
    """The share of an effect that is left, with its interval; all are None where `reason` says why no share is given.

    `n` observations in `groups` groups over `seeds` models were made at both nodes.
    """

    share: float | None
    low: float | None
    high: float | None
    reason: str
    n: int
    groups: int
    seeds: int

    @property
    def interval(self) -> list[float] | None:
        """The interval as [low, high], or None where no share is given."""
        return None if self.low is None or self.high is None else [self.low, self.high]


def share_left(first: Iterable[Observation], later: Iterable[Observation], level: float = 0.95) -> Retention:
    """Returns the share of the differences at a first node that is left at a later one (see the top of this file).

    Args:
      first: the differences arm - baseline at the first node, see `summaries.differences`.
      later: the same at the later node. Only what was observed at both nodes counts, which is everything where
        answers are scored.
      level: the level of the interval.

    Raises:
      UserError: fewer than two groups were observed at both nodes.
    """
    before, after = ({(row.key, row.seed): row for row in rows} for rows in (first, later))
    both = [at for at in before if at in after]
    if not both:
        raise UserError("nothing was observed at both nodes", where="evals", fix="ask the same suite at both stages")
    of_d, of_e, of_both = (
        Table([dataclasses.replace(before[at], value=x * before[at].value + y * after[at].value) for at in both])
        for x, y in ((1, 0), (0, 1), (1, 1))
    )
    d, e = of_d.mean, of_e.mean
    counts = (of_d.n, of_d.groups, of_d.seeds)
    forms = [
        (a, (s - a - c) / 2, c)
        for a, c, s in zip(*(table.squared_half_widths(level) for table in (of_d, of_e, of_both)), strict=True)
    ]
    if d * d <= max(a for a, _, _ in forms):
        return Retention(None, None, None, "the interval of the first effect contains 0", *counts)
    roots = [root for a, b, c in forms for root in _roots(d * d - a, d * e - b, e * e - c)]
    share = e / d
    return Retention(share, min([share, *roots]), max([share, *roots]), "", *counts)


def _roots(a: float, b: float, c: float) -> tuple[float, ...]:
    """Returns the real roots of a r^2 - 2 b r + c, if there are any."""
    squared = b * b - a * c
    if squared < 0:
        return ()
    half = math.sqrt(squared)
    return (b - half) / a, (b + half) / a
