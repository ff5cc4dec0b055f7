"""The data plan of a training run: the stage's base plan with the run's overlays on it."""

from __future__ import annotations

from alignpre_jax.foundation import UserError, derive_seed
from alignpre_jax.mixture import BasePlan, Ledger, Plan, ledger, parse_shares
from alignpre_jax.rows import RowStore, open_rows
from alignpre_jax.study.graph import StageRun
from alignpre_jax.study.workspace import Workspace


def stage_plan(space: Workspace, run: StageRun) -> tuple[Plan, dict[str, RowStore]]:
    """The plan of a run and the row stores it reads.

    The base plan is a function of (seed, stage) alone, so arms share it slot for slot.
    """
    stage = space.config.stages[run.stage]
    shares = parse_shares(stage.mixture, where=f"stages.{run.stage}.mixture")
    # All of the study's strata, so that a stratum has the same index in every arm, and one compiled step serves all.
    stores = {name: open_rows(space.rows(stage.row_length) / name) for name in space.config.data.strata()}
    rows = {name: len(store) for name, store in stores.items()}
    try:
        base = BasePlan(
            shares=shares,
            rows={name: rows[name] for name in shares},
            slots=stage.slots,
            seed=derive_seed(run.seed, run.stage, "base"),
            max_epochs=stage.max_epochs,
        )
        return Plan(base, run.overlays, rows), stores
    except UserError as error:
        place = f"stage {run.stage} of {', '.join(run.arms)}: {error.where}"
        raise UserError(error.what, where=place, fix=error.fix) from None


def stage_ledger(space: Workspace, run: StageRun) -> Ledger:
    """Integer token counts of a run, asked for and realised."""
    plan, _ = stage_plan(space, run)
    return ledger(plan, space.config.stages[run.stage].row_length)
