"""The verb about a machine that need not be there: plan."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignpre_jax.cli.terminal import Terminal
from alignpre_jax.cli.verb import JSON, Flag, Verb, study_config
from alignpre_jax.foundation import UserError, suggest

# These flags of `plan` say what is done with the figures, so an older revision is asked without them.
_OWN = ("--against", "--fail_above", "--json", "--html", "--search", "--dump_hlo", "--price", "--cache")


def _plan(given: Any) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # compiling for TPUs that are only described takes no accelerator
    from alignpre_jax.planner import Options, plan_work
    from alignpre_jax.planner.decode import decode_work

    config = study_config(given)
    works = _stage_works(config, given.stage, _lengths(config, given))
    if given.decode:
        rows, slots = _rows_and_slots(given.decode)
        works = [*works, decode_work(config.model, config.loop.mesh, rows, slots)]
    names = ("json", "html", "search", "against", "fail_above", "prices", "price", "cache")
    options = Options(hlo=given.dump_hlo, search_stage=given.stage, **{name: getattr(given, name) for name in names})
    with contextlib.ExitStack() as stack:
        if given.against_rev:
            against = stack.enter_context(_figures_at(given))
            options = dataclasses.replace(options, against=against)
        report = stack.enter_context(Terminal())
        arms = None if given.stage else _arms(config)
        seeds = len(config.seeds)
        plan_work(works, given.topology, slices=given.slices, arms=arms, seeds=seeds, options=options, report=report)


def _rows_and_slots(text: str) -> tuple[int, int]:
    rows, _, slots = text.partition("x")
    if not (rows.isdigit() and slots.isdigit() and int(rows) and int(slots)):
        raise UserError(f"{text!r} is not ROWSxSLOTS", where="--decode", fix="give e.g. --decode=64x2048")
    return int(rows), int(slots)


def _arms(config: Any) -> dict[str, list[tuple[str, bool]]]:
    """For each arm, in order, its stages of the first seed and whether other arms share the run there."""
    from alignpre_jax.study import Tree

    arms: dict[str, list[tuple[str, bool]]] = {name: [] for name in config.arms}
    for run in Tree(config).values():
        if run.seed == config.seeds[0]:
            for arm in run.arms:
                arms[arm].append((run.stage, len(run.arms) > 1))
    return arms


@contextlib.contextmanager
def _figures_at(given: Any) -> Iterator[str]:
    """Gives the path of a JSON file with the figures that a git revision predicts for the same command."""
    import alignpre_jax

    root = Path(alignpre_jax.__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="alignpre-rev-") as folder:
        tree, figures = Path(folder) / "tree", Path(folder) / "plan.json"
        add = ["git", "-C", str(root), "worktree", "add", "--detach", str(tree), given.against_rev]
        done = subprocess.run(add, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr.strip(), where="--against_rev", fix="give a commit, a branch or a tag")
        try:
            asked = [arg for arg in sys.argv[2:] if not arg.startswith(_OWN)]
            command = [sys.executable, "-m", "alignpre_jax.cli", "plan", *asked, f"--json={figures}"]
            # Without PYTHONSAFEPATH, `python -m` in a checkout would take the code from there.
            environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
            if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
                raise UserError(
                    f"the plan of {given.against_rev} failed", where="--against_rev", fix="its words are above"
                )
            yield str(figures)
        finally:
            remove = ["git", "-C", str(root), "worktree", "remove", "--force", str(tree)]
            subprocess.run(remove, capture_output=True, check=False)


def _stage_works(config: Any, only: str, lengths: Mapping[str, int]) -> list[Any]:
    """What the planner needs to know about every stage of which there are runs, in order, or about one stage."""
    from alignpre_jax.planner import StageWork
    from alignpre_jax.study import Tree
    from alignpre_jax.study.strata import strata_of_stage
    from alignpre_jax.training import StepConfig

    runs = collections.Counter(run.stage for run in Tree(config).values())
    if only and only not in runs:
        raise UserError(f"no arm goes through a stage {only!r}", where="--stage", fix=suggest(only, runs))
    works = []
    for name in [only] if only else runs:
        stage = config.stages[name]
        tokens = stage.tokens or lengths.get(name, 0)
        if not tokens:
            raise UserError(
                f"stage {name!r} is {stage.epochs:g} epochs long, and its rows are not built: how many tokens is that?",
                where=f"stages.{name}.epochs",
                fix=f"give --tokens={name}:COUNT, or --workdir of a study whose data is prepared, or plan one --stage",
            )
        step = StepConfig(
            model=config.model,
            objective=stage.objective,
            optimizer=stage.optimizer,
            schedule=stage.schedule,
            steps=max(tokens // stage.batch_tokens, 1),
            sources=len(strata_of_stage(config, name)),
            learn=stage.learn,
        )
        shape = {"batch_rows": stage.batch_rows, "row_length": stage.rows.length, "tokens": tokens}
        works.append(StageWork(name=name, step=step, mesh=config.loop.mesh, runs=runs[name], **shape))
    return works


def _lengths(config: Any, given: Any) -> dict[str, int]:
    """Tokens of stages that are measured in epochs: as --tokens says, or as the rows in --workdir have them."""
    from alignpre_jax.study import open_workspace
    from alignpre_jax.study.outline import outline

    lengths: dict[str, int] = {}
    if given.workdir:
        stages = outline(config, open_workspace(config, given.workdir, keep=False)).stages
        lengths = {stage.name: stage.runs[0].tokens for stage in stages}
    for part in filter(None, given.tokens.split(",")):
        name, _, count = part.partition(":")
        if name not in config.stages:
            raise UserError(f"no stage is named {name!r}", where="--tokens", fix=suggest(name, config.stages))
        if not count.replace("_", "").isdigit():
            raise UserError(
                f"{part!r} is not STAGE:COUNT", where="--tokens", fix="give e.g. --tokens=sft:4_000_000_000"
            )
        lengths[name] = int(count)
    return lengths


VERBS = {
    "plan": Verb(
        "compiles train and decode steps for a TPU topology, without a TPU: memory, time, cost, a faster config",
        "alignpre plan --config=configs/studies/paper_6p9b.py --topology=v5e:16x16 --stage=pretrain",
        (
            Flag("topology", "v5e:2x4", "TPU chip and shape, or the type of a slice such as v5litepod-16"),
            Flag("slices", 1, "slices joined by DCN", lower=1),
            Flag("stage", "", "only this stage"),
            Flag("tokens", "", "STAGE:COUNT,...: tokens of stages that are measured in epochs"),
            Flag("workdir", "", "a study whose data is prepared: its rows tell these tokens"),
            Flag("decode", "", "also decoding: ROWSxSLOTS, such as 64x2048"),
            Flag("search", 0, "compile so many candidates (remat, accumulation, mesh) for a faster step", lower=0),
            Flag("against", "", "compare with the figures in this JSON file"),
            Flag("against_rev", "", "compare with what this git revision predicts"),
            Flag("fail_above", -1.0, "fail where a figure is worse by more percent than this; negative: never"),
            Flag("prices", "", "TOML file of dollars per chip-hour by chip"),
            Flag("price", -1.0, "dollars per chip-hour; negative: from the table"),
            Flag("html", "", "write the page here"),
            Flag("cache", "", "folder of compiled programs; default: ~/.cache/alignpre/plans"),
            JSON,
            Flag("dump_hlo", "", "write the compiled program here"),
        ),
        _plan,
    ),
}
