"""The data plan of a training run is the stage's base plan with the run's overlays on it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from alignpre_jax.foundation import UserError, derive_seed, exact
from alignpre_jax.mixture import BasePlan, Ledger, Plan, ledger, parse_shares
from alignpre_jax.mixture.table import align
from alignpre_jax.rows import RowStore, open_rows
from alignpre_jax.study.config import StageConfig
from alignpre_jax.study.strata import strata_of_stage
from alignpre_jax.study.tree import StageRun
from alignpre_jax.study.workspace import Workspace


def stage_steps(stage: StageConfig, rows: Mapping[str, int], where: str = "stage") -> int:
    """The number of steps of a stage, in whole batches: tokens or rows beyond the last whole batch are not trained on.

    A stage of epochs ends when the first of its strata, by its rows and its share, has been gone through that often.
    What arms add or filter does not change this, so that all arms have the same steps.

    Args:
      stage: the stage's config.
      rows: the number of rows of every stratum of the mixture.
      where: the name of the stage in messages.

    Raises:
      UserError: the epochs have fewer rows than one batch.
    """
    if stage.tokens:
        return stage.tokens // stage.batch_tokens
    shares = parse_shares(stage.mixture)
    slots = min(math.floor(exact(stage.epochs) * rows[name] / shares[name]) for name in shares if shares[name])
    if slots < stage.batch_rows:
        what = f"{stage.epochs:g} epochs are {slots:,} rows, less than one batch of {stage.batch_rows}"
        raise UserError(what, where=f"{where}: epochs and batch_rows", fix="raise the first or lower the second")
    return slots // stage.batch_rows


def stage_plan(space: Workspace, run: StageRun) -> tuple[Plan, dict[str, RowStore]]:
    """The plan of a run, and the row stores of the stage by stratum.

    The base plan is a function of (seed, stage) alone, so that arms share it slot for slot.
    """
    stage = space.config.stages[run.stage]
    shares = parse_shares(stage.mixture, where=f"stages.{run.stage}.mixture")
    # These are the strata of all arms: so a stratum has the same index in every arm, and one compiled step serves all.
    strata = strata_of_stage(space.config, run.stage)
    stores = {name: open_rows(space.rows_read(run.stage, name)) for name in strata}
    rows = {name: len(store) for name, store in stores.items()}
    try:
        base = BasePlan(
            shares=shares,
            rows={name: rows[name] for name in shares},
            slots=stage_steps(stage, rows, run.stage) * stage.batch_rows,
            seed=derive_seed(run.seed, run.stage, "base"),
            max_epochs=stage.max_epochs,
            epoch_order=stage.epoch_order,
        )
        return Plan(base, run.overlays, rows), stores
    except UserError as error:
        place = f"stage {run.stage} of {', '.join(run.arms)}: {error.where}"
        raise UserError(error.what, where=place, fix=error.fix) from None


def stage_ledger(space: Workspace, run: StageRun) -> Ledger:
    """The ledger of a run: integer counts of the tokens that were asked for and of those that are given."""
    plan, stores = stage_plan(space, run)
    padded = {name: store.header.real_tokens for name, store in stores.items() if store.header.padding_tokens}
    learnt = {name: store.header.learnt_tokens for name, store in stores.items()}
    return ledger(plan, space.config.stages[run.stage].rows.length, text_tokens=padded, learnt_tokens=learnt)


def ledger_table(space: Workspace, ledgers: Mapping[str, Ledger]) -> str:
    """A table of what every arm of the first seed is trained on, stage after stage, in tokens.

    Args:
      space: the study's folder.
      ledgers: the ledgers by the names of the training runs.
    """
    config = space.config
    parts = []
    for stage in config.stages:
        runs = space.tree.of_stage(stage, config.seeds[0])
        counted = {_arms(run, len(config.arms)): ledgers[run.name] for run in runs}
        first, *_ = counted.values()
        table = [[stage, "asked of all", *counted]]
        for number, line in enumerate(first.stores):
            tokens = [of_run.stores[number].tokens for of_run in counted.values()]
            if line.asked_tokens or any(tokens):
                table.append([line.store, *(f"{count:,}" for count in (line.asked_tokens, *tokens))])
        parts.append(align(table))
        parts += [
            f"  {arms}: {change.kind}, {line.store} comes in: {line.asked_tokens:,} asked, {line.tokens:,} given"
            + (f", {line.duplicates * of_run.row_length:,} of them repeated" if line.duplicates else "")
            for arms, of_run in counted.items()
            for change in of_run.overlays
            for line in change.stores
        ]
    return "\n".join(parts)


def _arms(run: StageRun, of: int) -> str:
    return "all arms" if len(run.arms) == of else ", ".join(run.arms)
