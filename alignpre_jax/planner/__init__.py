"""The planner predicts, before a TPU is booked, whether a stage fits, how long it takes, what it costs, and what would
be faster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from alignpre_jax.foundation import PathLike, Report, UserError, read_json, silent, write_bytes, write_json
from alignpre_jax.planner.cache import Program
from alignpre_jax.planner.compare import Change, compare
from alignpre_jax.planner.cost import StudyCost, read_prices, study_cost
from alignpre_jax.planner.page import render_page
from alignpre_jax.planner.plan import DecodeWork, Plan, StageWork, Work, plan_stage, plan_stages
from alignpre_jax.planner.render import search_json, show, show_changes, show_cost, show_search, to_json
from alignpre_jax.planner.search import Search, best_for, search
from alignpre_jax.planner.topology import Topology, parse_topology

__all__ = [
    "Change",
    "DecodeWork",
    "Options",
    "Plan",
    "Program",
    "Search",
    "StageWork",
    "StudyCost",
    "Topology",
    "compare",
    "parse_topology",
    "plan_stage",
    "plan_stages",
    "plan_work",
    "search",
]

Arms = Mapping[str, Sequence[tuple[str, bool]]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked for beside the plan itself.

    Attributes:
      json: a file for the figures.
      html: a file for the page.
      hlo: a file for the compiled text; where it differs between works, each text gets a file of its own, with the
        work's name before the suffix.
      search: how many candidates to compile in search of a faster step; 0 does not search.
      search_stage: the stage to search for; by default the one with the most tokens.
      against: a JSON file of figures to compare with.
      fail_above: percent by which a guarded figure may grow over the one in `against`; negative guards nothing.
      prices: a TOML file of dollars per chip-hour by chip.
      price: dollars per chip-hour, in place of any table's; negative takes the table's.
      cache: the folder of compiled programs; empty for the user's own.
    """

    json: PathLike = ""
    html: PathLike = ""
    hlo: PathLike = ""
    search: int = 0
    search_stage: str = ""
    against: PathLike = ""
    fail_above: float = -1.0
    prices: PathLike = ""
    price: float = -1.0
    cache: PathLike = ""


def plan_work(
    works: Sequence[Work],
    topology: str,
    *,
    slices: int = 1,
    arms: Arms | None = None,
    seeds: int = 1,
    options: Options | None = None,
    report: Report = silent,
) -> list[Plan]:
    """Plans stages and decoding, prints the tables, and writes what `options` asks for.

    Args:
      works: stages, each once, and decoding.
      topology: the topology of one slice, such as "v5e:4x4".
      slices: how many slices there are.
      arms: the arms of the study, each with its stages in order as (stage, whether other arms share that run).
      seeds: how many seeds the study has.
      options: see `Options`.
      report: told what is being compiled.

    Raises:
      UserError: see `plan_stage`; also a guarded figure grew too much, or a file cannot be read.
    """
    options = options or Options()
    place = parse_topology(topology, slices)
    cache = Path(options.cache) if options.cache else None
    price = options.price if options.price >= 0 else read_prices(options.prices).get(place.kind)
    plans = plan_stages(works, place, report, cache)
    show(plans)
    cost = study_cost(plans, arms, seeds, price) if arms else None
    if cost:
        show_cost(cost)
    found = None
    if options.search:
        stages = [work for work in works if isinstance(work, StageWork)]
        found = search(best_for(stages, options.search_stage), place, options.search, report, cache)
        show_search(found)
    figures = to_json(plans)
    figures |= {"cost": dataclasses.asdict(cost)} if cost else {}
    figures |= {"search": search_json(found)} if found else {}
    changes = compare(read_json(options.against), figures) if options.against else []
    if changes:
        show_changes(changes)
    if options.json:
        write_json(options.json, figures)
    if options.html:
        write_bytes(options.html, render_page(plans, cost, found, changes).encode())
    if options.hlo:
        _write_programs(plans, epath.Path(options.hlo))
    _guard(changes, options)
    return plans


def _write_programs(plans: Sequence[Plan], path: Any) -> None:
    stages = {plan.text: plan.work.name for plan in plans if plan.text}
    for text, stage in stages.items():
        write_bytes(path if len(stages) == 1 else path.with_suffix(f".{stage}{path.suffix}"), text.encode())


def _guard(changes: Sequence[Change], options: Options) -> None:
    worse = [each for each in changes if options.fail_above >= 0 and each.worse_by(options.fail_above)]
    if worse:
        lines = "; ".join(f"{each.stage}: {each.figure} {each.before:.5g} -> {each.after:.5g}" for each in worse)
        raise UserError(
            f"worse than {options.against} by more than {options.fail_above:g}%: {lines}",
            where="--fail_above",
            fix="find the change that did it, or write the new figures with --json",
        )
