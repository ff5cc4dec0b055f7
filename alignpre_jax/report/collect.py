"""Gathers what a study's jobs left in its folder into the records that the report is made from."""

from __future__ import annotations

from etils import epath

from alignpre_jax.evals import TextScore, load_suite, read_results
from alignpre_jax.evals.capabilities import Solution
from alignpre_jax.foundation import UserError, read_json, read_jsonl, write_bytes
from alignpre_jax.report.records import Moment, StageTime, StudyRecords
from alignpre_jax.study.graph import StageRun, final_run, jobs, run_path, stage_runs
from alignpre_jax.study.overlap import overlap_path
from alignpre_jax.study.plans import stage_ledger
from alignpre_jax.study.runner import RESULTS, SOLUTIONS, STEPS, TAX, is_done
from alignpre_jax.study.workspace import Workspace

METRICS = "metrics.jsonl"


def collect(space: Workspace) -> StudyRecords:
    """The records of a finished study.

    Raises:
      UserError: some job is not done yet.
    """
    config, runs = space.config, stage_runs(space.config)
    missing = [name for name, job in jobs(config).items() if not is_done(space, job)]
    if missing:
        raise UserError(
            f"{len(missing)} jobs are not done yet, the first: {missing[0]}",
            where=f"{space.root}",
            fix="run `alignpre study` with the same config and --workdir; it goes on where it stopped",
        )
    finals = {arm: {seed: final_run(config, runs, arm, seed) for seed in config.seeds} for arm in config.arms}
    saved = read_json(space.root / "versions.json")
    return StudyRecords(
        config=config,
        scenarios=load_suite(config.evals.suite, config.data.world),
        results={
            arm: {seed: list(read_results(space.eval_dir(run.name) / RESULTS)) for seed, run in by_seed.items()}
            for arm, by_seed in finals.items()
        },
        texts={arm: {seed: _texts(space, run) for seed, run in by_seed.items()} for arm, by_seed in finals.items()},
        ledgers={
            arm: {run.stage: stage_ledger(space, run) for run in run_path(runs, by_seed[config.seeds[0]])}
            for arm, by_seed in finals.items()
        },
        overlap=read_json(overlap_path(space)) if config.data.overlap else [],
        times=[_time(space, run) for run in runs.values()],
        versions=saved["versions"],
        reproduce=saved["command"],
        solutions={
            arm: {seed: found for seed, run in by_seed.items() if (found := _solutions(space, run))}
            for arm, by_seed in finals.items()
        }
        if config.evals.capabilities
        else {},
        moments={
            arm: along
            for arm, by_seed in finals.items()
            if (along := _moments(space, {seed: run_path(runs, run) for seed, run in by_seed.items()}))
        },
    )


def write_metrics(space: Workspace) -> epath.Path:
    """Writes WORKDIR/metrics.jsonl: the metrics of all runs, one object per logged step."""
    path = space.root / METRICS
    parts = [(space.run_dir(name) / METRICS).read_text() for name in stage_runs(space.config)]
    write_bytes(path, "".join(parts).encode())
    return path


def _solutions(space: Workspace, run: StageRun) -> list[Solution]:
    path = space.eval_dir(run.name) / SOLUTIONS
    return [Solution.from_json(row) for row in read_jsonl(path)] if path.exists() else []


def _moments(space: Workspace, paths: dict[int, list[StageRun]]) -> list[Moment]:
    """The evals along the way to an arm's model that every seed has."""
    moments, before = [], 0
    for runs in zip(*paths.values(), strict=True):  # the same stage of every seed
        stage = space.config.stages[runs[0].stage]
        folders = {seed: space.eval_dir(run.name) / STEPS for seed, run in zip(paths, runs, strict=True)}
        steps = [
            {int(folder.name) for folder in root.iterdir() if (folder / RESULTS).exists()} if root.exists() else set()
            for root in folders.values()
        ]
        for step in sorted(set.intersection(*steps)):
            results = {seed: list(read_results(root / str(step) / RESULTS)) for seed, root in folders.items()}
            tokens = before + step * stage.batch_rows * stage.row_length
            moments.append(Moment(runs[0].stage, step, tokens, results))
        before += stage.slots * stage.row_length
    return moments


def _texts(space: Workspace, run: StageRun) -> list[TextScore]:
    return [TextScore(**row) for row in read_jsonl(space.eval_dir(run.name) / TAX)]


def _time(space: Workspace, run: StageRun) -> StageTime:
    stage = space.config.stages[run.stage]
    *_, last = read_jsonl(space.run_dir(run.name) / METRICS)
    return StageTime(run.stage, stage.steps * stage.batch_rows * stage.row_length, last["seconds"])
