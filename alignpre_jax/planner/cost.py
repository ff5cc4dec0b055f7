"""Computes what a study costs: chip-hours, days and money of each arm, and of all arms with shared stages once."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources

from etils import epath

from alignpre_jax.foundation import CHIPS, PathLike, UserError
from alignpre_jax.planner.plan import Plan


@dataclasses.dataclass(frozen=True)
class Cost:
    """A cost in chip-hours, in days if runs follow one another on the topology, and in dollars (None if unpriced)."""

    chip_hours: float
    days: float
    dollars: float | None


@dataclasses.dataclass(frozen=True)
class StudyCost:
    """The cost of a study.

    Attributes:
      price: dollars per chip-hour, None when unknown.
      total: the cost of every training run, each counted once.
      arms: the cost of one seed of each arm, as if it were the only arm: all stages from the first.
      added: the cost of those runs of one seed that belong to one arm alone, by arm; the others are in `shared`.
      shared: the cost of those runs of one seed that several arms go through.
      seeds: how many seeds are in `total`.
    """

    price: float | None
    total: Cost
    arms: Mapping[str, Cost]
    added: Mapping[str, Cost]
    shared: Cost
    seeds: int


def read_prices(path: PathLike = "") -> dict[str, float]:
    """Reads dollars per chip-hour by chip from a TOML file of `chip = dollars`, by default this package's own.

    Raises:
      UserError: there is no such file, or a line is not a chip and its price.
    """
    try:
        text = (
            epath.Path(path).read_text() if path else resources.files(__package__).joinpath("prices.toml").read_text()
        )
        table = tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(
            f"no table of prices: {error}", where=f"--prices={path}", fix="give lines such as v5e = 1.20"
        ) from None
    for chip, dollars in table.items():
        if chip not in CHIPS or not isinstance(dollars, (int, float)) or dollars < 0:
            raise UserError(f"{chip} = {dollars!r}", where=f"--prices={path}", fix=f"chips: {', '.join(CHIPS)}")
    return {chip: float(dollars) for chip, dollars in table.items()}


def study_cost(
    plans: Sequence[Plan], arms: Mapping[str, Sequence[tuple[str, bool]]], seeds: int, price: float | None
) -> StudyCost | None:
    """Returns the cost of a study, or None where a stage does not fit or was not planned.

    Args:
      plans: the plans of the study's stages.
      arms: for each arm its stages in order, as (stage, whether other arms share that run).
      seeds: how many seeds the study has; each trains everything again.
      price: dollars per chip-hour.
    """
    hours, days = {}, {}
    for plan in plans:
        if plan.speed and plan.work.runs:
            hours[plan.work.name] = plan.speed.chip_hours / plan.work.runs
            days[plan.work.name] = plan.speed.days
    if any(stage not in hours for path in arms.values() for stage, _ in path):
        return None

    def cost(stages: Sequence[str]) -> Cost:
        spent = sum(hours[stage] for stage in stages)
        return Cost(spent, sum(days[stage] for stage in stages), None if price is None else spent * price)

    every = [plan.work.name for plan in plans for _ in range(plan.work.runs)]
    added = {arm: [stage for stage, shared in path if not shared] for arm, path in arms.items()}
    left = {plan.work.name: plan.work.runs // max(seeds, 1) for plan in plans}
    for stages in added.values():
        for stage in stages:
            left[stage] -= 1
    return StudyCost(
        price,
        cost(every),
        {arm: cost([stage for stage, _ in path]) for arm, path in arms.items()},
        {arm: cost(stages) for arm, stages in added.items()},
        cost([stage for stage, count in left.items() for _ in range(max(count, 0))]),
        seeds,
    )
