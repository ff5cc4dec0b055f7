"""This module gathers what a study's jobs left in its folder into the records that the report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from alignpre_jax.evals import Capabilities, HeldOut, Scenarios, TextScore, read_results, read_shown
from alignpre_jax.evals.capabilities import Solution
from alignpre_jax.foundation import UserError, read_json, read_jsonl, write_bytes
from alignpre_jax.mixture import Ledger
from alignpre_jax.report.nodes import arms_at, asked_nodes
from alignpre_jax.study.config import Eval
from alignpre_jax.study.graph import job_graph
from alignpre_jax.study.jobs import is_done
from alignpre_jax.study.jobs.evaluate import RESULTS, SHOWN
from alignpre_jax.study.jobs.rows import ledger_path
from alignpre_jax.study.made import read_made, versions
from alignpre_jax.study.overlap import overlap_path
from alignpre_jax.study.plans import stage_ledger
from alignpre_jax.study.records import Moment, RunFacts, StudyRecords
from alignpre_jax.study.tree import StageRun
from alignpre_jax.study.workspace import Workspace, study_facts

METRICS = "metrics.jsonl"

Rows = dict[str, dict[str, dict[str, dict[int, list[Any]]]]]  # eval -> stage -> arm -> seed -> rows


def collect(space: Workspace) -> StudyRecords:
    """Collects the records of a finished study.

    Raises:
      UserError: some job is not done yet.
    """
    config = space.config
    missing = [name for name, job in job_graph(space.tree).items() if not is_done(space, job)]
    if missing:
        raise UserError(
            f"{len(missing)} jobs are not done yet, the first: {missing[0]}",
            where=f"{space.root}",
            fix="run `alignpre study` with the same config and --workdir; it goes on where it stopped",
        )
    first = {run.stage: run for name in config.stages for run in space.tree.of_stage(name, config.seeds[0])[:1]}
    ledgers = {run.name: stage_ledger(space, run) for run in space.tree.values() if run.seed == config.seeds[0]}
    of_arm = {
        arm: {stage: ledgers[space.tree.run(arm, config.seeds[0], stage).name] for stage in config.stages_of(arm)}
        for arm in config.arms
    }
    read = _Reader()
    return StudyRecords(
        config=config,
        results=_answers(space, Scenarios, read),
        texts=_answers(space, HeldOut, read),
        solutions=_answers(space, Capabilities, read),
        shown={
            name: read_shown(space.eval_dir(first[asked_nodes(config, name)[0]].name, name) / SHOWN)
            for name, asked in config.evals.items()
            if isinstance(asked, Scenarios)
        },
        ledgers=of_arm,
        runs=_facts(space),
        versions=versions(),
        reproduce=study_facts(space)["command"],
        moments={arm: along for arm in config.arms if (along := _moments(space, arm, of_arm[arm], read))},
        overlap=read_json(overlap_path(space)) if config.data.overlap else [],
    )


def write_metrics(space: Workspace) -> epath.Path:
    """Writes WORKDIR/metrics.jsonl: the metrics of all runs, one object per logged step."""
    path = space.root / METRICS
    parts = [(space.run_dir(name) / METRICS).read_text() for name in space.tree]
    write_bytes(path, "".join(parts).encode())
    return path


def _answers(space: Workspace, kind: type, read: _Reader) -> Rows:
    """The rows of all evals of one kind."""
    config = space.config
    return {
        name: {
            stage: {
                arm: {
                    seed: read(asked, space.eval_dir(space.tree.run(arm, seed, stage).name, name) / RESULTS)
                    for seed in config.seeds
                }
                for arm in arms_at(config, stage)
            }
            for stage in asked_nodes(config, name)
        }
        for name, asked in config.evals.items()
        if isinstance(asked, kind)
    }


class _Reader:
    """Reads the rows of files, each file only once, because arms that share a run have the same file."""

    def __init__(self) -> None:
        self._found: dict[epath.Path, list[Any]] = {}

    def __call__(self, asked: Eval, path: epath.Path) -> list[Any]:
        if path not in self._found:
            self._found[path] = list(_read(asked, path))
        return self._found[path]


def _read(asked: Eval, path: epath.Path) -> Any:
    if isinstance(asked, Scenarios):
        return read_results(path)
    made: Callable[..., Any] = _text if isinstance(asked, HeldOut) else Solution.from_json
    return map(made, read_jsonl(path))


def _text(row: Mapping[str, Any]) -> TextScore:
    return TextScore(**row)


def _moments(space: Workspace, arm: str, ledgers: Mapping[str, Ledger], read: _Reader) -> list[Moment]:
    """What an arm answered during training at the steps that every seed has, stage after stage in the tree's order."""
    config, moments = space.config, []
    for stage in config.stages_of(arm):
        before = sum(ledgers[name].tokens for name in config.way(arm, stage)[:-1])
        runs = {seed: space.tree.run(arm, seed, stage) for seed in config.seeds}
        folders = {seed: space.in_loop_dir(run.name) for seed, run in runs.items()}
        for name, asked in config.evals.items():
            if not asked.is_in_loop:
                continue
            for step in sorted(set.intersection(*(_steps(folder, name) for folder in folders.values()))):
                rows = {seed: read(asked, folder / str(step) / f"{name}.jsonl") for seed, folder in folders.items()}
                tokens = before + step * config.stages[stage].batch_tokens
                moments.append(Moment(name, stage, step, tokens, rows))
    return moments


def _steps(folder: epath.Path, name: str) -> set[int]:
    """The steps at which an eval was asked."""
    if not folder.exists():
        return set()
    return {int(one.name) for one in folder.iterdir() if one.name.isdigit() and (one / f"{name}.jsonl").exists()}


def _facts(space: Workspace) -> list[RunFacts]:
    planned = read_json(ledger_path(space))
    return [_fact(space, run, planned[run.name]) for run in space.tree.values()]


def _fact(space: Workspace, run: StageRun, ledger: Mapping[str, Any]) -> RunFacts:
    folder = space.run_dir(run.name)
    *_, last = read_jsonl(folder / METRICS)
    made = read_made(folder)
    return RunFacts(
        name=run.name,
        stage=run.stage,
        tokens=ledger["tokens"],
        learnt_tokens=sum(line["learnt_tokens"] for line in ledger["stores"]),
        seconds=last["seconds"],
        versions=made["versions"] if made else {},
    )
