"""The outline of a study shows it before it runs: the tree, which arms share runs, tokens, and what is done already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from alignpre_jax.foundation import read_json
from alignpre_jax.mixture.shares import decimal
from alignpre_jax.model import Full, Lora
from alignpre_jax.study.config import ArmConfig, StageConfig, StudyConfig
from alignpre_jax.study.jobs.evaluate import is_answered
from alignpre_jax.study.jobs.rows import is_prepared, ledger_path
from alignpre_jax.study.tree import StageRun, Tree
from alignpre_jax.study.workspace import Workspace
from alignpre_jax.training import is_done


@dataclasses.dataclass(frozen=True)
class RunOutline:
    """The runs of a stage that differ in nothing but the seed.

    Attributes:
      label: the name of the runs' folders, STAGE or STAGE-ARM.
      arms: the arms that share the runs.
      change: what these arms change in this stage, in words; empty where they change nothing.
      tokens: the number of tokens that one run is trained on; 0 where the stage is measured in epochs and its rows are
        not built.
      learnt_tokens: how many of them are targets of the loss; None where the rows are not built.
      trained: how many of the runs are finished.
      answered: how many of the finished runs have the answers to all evals that are asked at the stage.
    """

    label: str
    arms: tuple[str, ...]
    change: str
    tokens: int
    learnt_tokens: int | None
    trained: int
    answered: int


@dataclasses.dataclass(frozen=True)
class StageOutline:
    """A stage of the tree with its runs."""

    name: str
    after: str
    depth: int
    what: str  # how it is trained, in words
    evals: tuple[str, ...]
    runs: tuple[RunOutline, ...]


@dataclasses.dataclass(frozen=True)
class Outline:
    """The outline of a whole study.

    Attributes:
      name: the study's name.
      arms: the names of the arms, the baseline first.
      seeds: the study's seeds; every run is done once per seed.
      stages: the stages in the order of the tree.
      tokens: how many tokens all runs together are trained on; None where a stage is measured in epochs and its rows
        are not built.
      unshared_tokens: how many it would be if every arm were trained by itself.
    """

    name: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    stages: tuple[StageOutline, ...]
    tokens: int | None
    unshared_tokens: int | None


def outline(config: StudyConfig, space: Workspace | None = None) -> Outline:
    """Makes the outline of a study; where its folder is given, the outline also says what is done in it."""
    tree = space.tree if space else Tree(config)
    planned = read_json(ledger_path(space)) if space and is_prepared(space) else {}
    stages: list[StageOutline] = []
    depths: dict[str, int] = {"": -1}
    for name, stage in config.stages.items():
        depths[name] = depths[stage.after] + 1
        runs = tuple(_run(config, tree, run, space, planned) for run in tree.of_stage(name, config.seeds[0]))
        evals = tuple(asked for asked in config.evals if name in config.asked_at(asked))
        stages.append(StageOutline(name, stage.after, depths[name], stage_words(stage), evals, runs))
    every = [run for stage in stages for run in stage.runs]
    is_known = all(run.tokens for run in every)
    seeds = len(config.seeds)
    return Outline(
        config.name,
        tuple(config.arms),
        config.seeds,
        tuple(stages),
        seeds * sum(run.tokens for run in every) if is_known else None,
        seeds * sum(run.tokens * len(run.arms) for run in every) if is_known else None,
    )


def stage_words(stage: StageConfig) -> str:
    """Describes in words how a stage is trained."""
    rows, rate = stage.rows, stage.schedule
    length = f"{stage.tokens:,} tokens" if stage.tokens else f"{stage.epochs:g} epoch{'s' * (stage.epochs != 1)}"
    parts = [f"{length} of {stage.mixture}", f"{stage.batch_rows} rows of {rows.length:,} a step"]
    parts.append(f"{stage.objective.name}, rate {rate.peak:g} to {rate.final:g}")
    if isinstance(stage.learn, Lora):
        parts.append(f"LoRA of rank {stage.learn.rank}")
    elif not isinstance(stage.learn, Full):
        parts.append(f"only {', '.join(stage.learn.patterns)}")
    if stage.reference:
        parts.append(f"beside {stage.reference}")
    return "; ".join(parts)


def change_words(arm: ArmConfig, stage: str) -> str:
    """Describes in words what an arm changes in a stage; empty where the arm changes nothing."""
    parts = []
    if stage in arm.filter:
        for stratum, refill, keep in arm.filter[stage].removals:
            leak = f", but for {100 * keep:g}% of it that leaks" if keep else ""
            parts.append(f"refills the slots of {stratum} with {refill}{leak}")
    if stage in arm.add:
        add = arm.add[stage]
        shares = add.shares
        only = next(iter(shares)) if len(shares) == 1 else ""
        with_what = only or ", ".join(f"{decimal(share)} {name}" for name, share in shares.items())
        when = f" (schedule {add.schedule})" if add.schedule else ""
        parts.append(f"replaces {100 * add.dose:g}% of the tokens with {with_what}{when}")
    return " and ".join(parts)


def _run(
    config: StudyConfig, tree: Tree, run: StageRun, space: Workspace | None, planned: Mapping[str, Any]
) -> RunOutline:
    stage = config.stages[run.stage]
    tokens = stage.tokens // stage.batch_tokens * stage.batch_tokens
    learnt = None
    if run.name in planned:
        ledger = planned[run.name]
        tokens = sum(line["tokens"] for line in ledger["stores"])
        learnt = sum(line["learnt_tokens"] for line in ledger["stores"])
    trained = answered = 0
    for seed in config.seeds:
        other = tree.run(run.arms[0], seed, run.stage).name
        if space and is_done(space.run_dir(other)):
            trained += 1
            names = [name for name in config.evals if run.stage in config.asked_at(name)]
            answered += bool(names) and all(is_answered(space, other, name) for name in names)
    label = run.name.partition("/")[2]
    return RunOutline(
        label, run.arms, change_words(config.arms[run.arms[0]], run.stage), tokens, learnt, trained, answered
    )
