"""Which chat template a stage's model has, from the config alone."""

from __future__ import annotations

from alignpre_jax.rows import Template, load_template
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.strata import strata_of_stage


def named_template(config: StudyConfig, stage: str) -> Template | None:
    """The chat template that a stage names, or that the nearest stage before it in the tree names.

    Stages that an arm skips count here as well, so that a stage has one template in all arms.

    Returns:
      None where no stage on the way names a template.
    """
    while stage:
        named = config.stages[stage].rows.template
        if named:
            return load_template(named, Template())
        stage = config.stages[stage].after
    return None


def reads_chats(config: StudyConfig, stage: str) -> bool:
    """Whether a stage, or a stage before it in the tree, reads anything that is written with a chat template."""
    while stage:
        if any(config.data.kind_of(stratum) != "text" for stratum in strata_of_stage(config, stage)):
            return True
        stage = config.stages[stage].after
    return False
