"""Knows before a TPU is booked: does a stage fit, how long does it take, what does it cost."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from alignpre_jax.foundation import PathLike, Report, silent, write_bytes, write_json
from alignpre_jax.planner.chips import CHIPS, Chip, Topology, parse_topology
from alignpre_jax.planner.plan import Plan, StageWork, plan_stage, plan_stages
from alignpre_jax.planner.render import show, to_json

__all__ = ["CHIPS", "Chip", "Plan", "StageWork", "Topology", "parse_topology", "plan_stage", "plan_stages", "plan_work"]


def plan_work(
    works: Sequence[StageWork],
    topology: str,
    *,
    slices: int = 1,
    json: PathLike = "",
    hlo: PathLike = "",
    report: Report = silent,
) -> list[Plan]:
    """Plans stages, prints the table, and writes the figures (JSON) and the compiled programs where asked.

    Args:
      works: the stages, each once.
      topology: of one slice, "v5e:4x4".
      slices: how many slices.
      json: a file for the figures.
      hlo: a file for the compiled text; where stages differ in it, one each with the stage's name before the suffix.
      report: hears which stage is being compiled.

    Raises:
      UserError: see `plan_stage`.
    """
    plans = plan_stages(works, parse_topology(topology, slices), report)
    show(plans)
    if json:
        write_json(json, to_json(plans))
    if hlo:
        stages = {plan.text: plan.work.name for plan in plans if plan.text}
        for text, stage in stages.items():
            path = epath.Path(hlo)
            write_bytes(path if len(stages) == 1 else path.with_suffix(f".{stage}{path.suffix}"), text.encode())
    return plans
