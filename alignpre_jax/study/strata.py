"""Which strata a stage reads."""

from __future__ import annotations

from alignpre_jax.mixture import parse_shares
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.tree import StageRun


def strata_of_stage(config: StudyConfig, stage: str, run: StageRun | None = None) -> list[str]:
    """The strata that a stage's rows come from, in the study's order: those of all arms, or those of one run."""
    used = set(parse_shares(config.stages[stage].mixture))
    for arm in config.arms if run is None else run.arms:
        change = config.arms[arm]
        if stage in change.add:
            used |= set(change.add[stage].shares)
        if stage in change.filter:
            used |= set(change.filter[stage].refill)
    return [stratum for stratum in config.data.strata() if stratum in used]
