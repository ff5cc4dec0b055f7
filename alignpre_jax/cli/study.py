"""The verbs that run a study, or a part of it, or report it: study, prepare, train, eval, job, report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alignpre_jax.cli.terminal import Terminal
from alignpre_jax.cli.verb import ARM, SEED, SMALL, STAGE, WORKDIR, WORKERS, Flag, Verb, study_config, workdir
from alignpre_jax.foundation import UserError, suggest

if TYPE_CHECKING:
    from alignpre_jax.study import Workspace


def _study(given: Any) -> None:
    from alignpre_jax.launch import run
    from alignpre_jax.study import job_graph, open_workspace

    space = open_workspace(study_config(given), workdir(given), study_command())
    with Terminal() as report:
        run(space, job_graph(space.tree), report, given.workers)
    _write_report(space)


def _up_to(kind: str) -> Callable[[Any], None]:
    """Makes a verb that runs the jobs of one kind (of one arm, seed and stage, if given) and all that they need."""

    def run_verb(given: Any) -> None:
        from alignpre_jax.launch import run
        from alignpre_jax.study import job_graph, open_workspace, with_needs

        space = open_workspace(study_config(given), workdir(given), study_command())
        config, graph, tree = space.config, job_graph(space.tree), space.tree
        if given.stage and given.stage not in config.stages:
            fix = suggest(given.stage, config.stages)
            raise UserError(f"no stage is named {given.stage!r}", where="--stage", fix=fix)
        arms = [given.arm] if given.arm else list(config.arms)
        seeds = [given.seed] if given.seed is not None else list(config.seeds)
        wanted = {
            tree.run(arm, seed, stage).name
            for arm in arms
            for seed in seeds
            for stage in ([given.stage] if given.stage and given.arm else config.stages_of(arm))
            if given.stage in ("", stage)
        }
        names = [job.name for job in graph.values() if job.kind == kind and (not job.run or wanted & set(job.runs))]
        with Terminal() as report:
            run(space, with_needs(graph, names), report, given.workers)
        print(f"{kind}: done; {space.root}")

    return run_verb


def _job(given: Any, *names: str) -> None:
    """Runs the named jobs and no others, as a launched machine does."""
    from alignpre_jax.launch import run
    from alignpre_jax.launch.together import wait_for
    from alignpre_jax.study import job_graph, reopen_workspace

    space = reopen_workspace(workdir(given))
    graph = job_graph(space.tree)
    for name in names:
        if name not in graph:
            raise UserError(f"the study has no job {name!r}", where="alignpre job", fix=suggest(name, graph))
    wanted = {name: job for name, job in graph.items() if name in names}
    wait_for(space, [graph[need] for job in wanted.values() for need in job.needs if need not in wanted])
    with Terminal() as report:
        run(space, wanted, report, given.workers)


def _report(given: Any, *runs: str) -> None:
    from alignpre_jax.report import write_comparison
    from alignpre_jax.study import open_workspace, reopen_workspace

    if given.workdir or not runs:
        runs = (workdir(given), *runs)
    if len(runs) > 1 and not given.to:
        raise UserError(
            f"{len(runs)} studies, and where to?", where="--to", fix="name a folder for their common report"
        )
    if len({run.rstrip("/") for run in runs}) < len(runs):
        raise UserError("a study is named twice", where="alignpre report", fix="name each folder once")
    reports = {}
    for run in runs:
        space = open_workspace(study_config(given), run) if given.config else reopen_workspace(run)
        reports[run.rstrip("/")] = _write_report(space)
    if len(runs) > 1:
        write_comparison(reports, given.to)
        print(f"common report: {given.to}/report.html")


def _write_report(space: Workspace) -> dict[str, Any]:
    from rich.console import Console

    from alignpre_jax.report import collect, terminal_report, write_metrics, write_report

    report = write_report(collect(space), space.root)
    write_metrics(space)
    Console(highlight=False).print(terminal_report(report))
    print(f"\nreport: {space.root / 'report.html'}")
    return report


def study_command() -> str:
    """The command that makes the whole study, also when only a part of it was asked for."""
    flags_of_a_part = ("--arm", "--seed", "--stage", "--workers")
    given = [arg for arg in sys.argv[2:] if not arg.startswith(flags_of_a_part)]
    return shlex.join(["alignpre", "study", *given])


VERBS = {
    "study": Verb(
        "runs a whole study, or goes on with one, and reports it",
        f"alignpre study {SMALL} --config.seeds=0,1,2 --config.arms.aligned.add.midtrain.dose=0.02",
        (WORKDIR, WORKERS),
        _study,
        more=(
            "alignpre study --config=configs/studies/pythia.py:125m --workdir=runs/mine"
            " --config.data.sources.web.inputs=my/corpus",
            f"alignpre study {SMALL} --config.stages.midtrain.mixture=web/plain:0.5,web/ai:0.5",
        ),
    ),
    "prepare": Verb(
        "reads the documents, trains the tokenizer, builds the rows, plans every arm",
        f"alignpre prepare {SMALL}",
        (WORKDIR, WORKERS, ARM, SEED, STAGE),
        _up_to("prepare"),
    ),
    "train": Verb(
        "trains the runs of all arms, or of one, and what they start from",
        f"alignpre train {SMALL} --arm=aligned --seed=0",
        (WORKDIR, WORKERS, ARM, SEED, STAGE),
        _up_to("train"),
    ),
    "eval": Verb(
        "scores the scenarios on all arms, or on one",
        f"alignpre eval {SMALL} --arm=aligned",
        (WORKDIR, WORKERS, ARM, SEED, STAGE),
        _up_to("eval"),
    ),
    "job": Verb(
        "does single jobs of a study whose folder is there, as launched machines do",
        "alignpre job train/seed0/pretrain eval/seed0/midtrain --workdir=runs/small_world",
        (WORKDIR, WORKERS),
        _job,
        arguments="JOB...",
        takes_config=False,
    ),
    "report": Verb(
        "writes report.html, .json, .csv and .md of a study, and one report of several",
        "alignpre report runs/small runs/large --to=runs/both",
        (WORKDIR, Flag("to", "", "folder for the common report of several studies")),
        _report,
        arguments="[RUN...]",
    ),
}
