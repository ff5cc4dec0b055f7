"""A study is done as a graph of jobs, which says what has to be done and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.tree import StageRun, Tree


@dataclasses.dataclass(frozen=True)
class Job:
    """A job is a unit of work that a process can take; its `kind` is import, prepare, train or eval."""

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    run: str = ""  # the name of the run that a train or eval job is about
    others: tuple[str, ...] = ()  # the names of runs of further seeds that are trained in the same program

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all runs that the job is about."""
        return (self.run, *self.others) if self.run else ()


def job_graph(tree: Tree) -> dict[str, Job]:
    """The study's jobs by name, each after the jobs it needs: import, prepare, train jobs and eval jobs, one per run.

    An eval job puts every eval that is asked at the run's stage to the run's last checkpoint; a run at whose stage no
    eval is asked has none. With `vmap_seeds` above 1 a train job is about that many seeds of a run:
    "train/seed0+1/midtrain".
    """
    config = tree.config
    trained_by = {run.name: _train_job(config, run) for run in tree.values()}
    found = [Job("import", "import")] if config.init_from else []
    found += [Job("prepare", "prepare", tuple(job.name for job in found))]
    for name in dict.fromkeys(trained_by.values()):
        first, *others = (run for run in tree if trained_by[run] == name)
        before = [trained_by[run] for run in (tree[first].parent, tree[first].reference) if run]
        found.append(Job(name, "train", tuple(dict.fromkeys(before)) or ("prepare",), first, tuple(others)))
    asked = {stage for name in config.evals for stage in config.asked_at(name)}
    found += [Job(f"eval/{name}", "eval", (trained_by[name],), name) for name in tree if tree[name].stage in asked]
    return {job.name: job for job in found}


def evals_of(config: StudyConfig, run: StageRun) -> list[str]:
    """The names of the evals that are put to a run's last checkpoint."""
    return [name for name in config.evals if run.stage in config.asked_at(name)]


def in_loop_evals(config: StudyConfig, run: StageRun) -> list[str]:
    """The names of the evals that are put to a run while it trains: by default at every stage."""
    return [
        name for name, asked in config.evals.items() if asked.is_in_loop and run.stage in (asked.at or (run.stage,))
    ]


def _train_job(config: StudyConfig, run: StageRun) -> str:
    """The name of the job that trains a run."""
    first = config.seeds.index(run.seed) // config.vmap_seeds * config.vmap_seeds
    seeds = "+".join(map(str, config.seeds[first : first + config.vmap_seeds]))
    return f"train/seed{seeds}/{run.name.partition('/')[2]}"


def with_needs(graph: dict[str, Job], names: Iterable[str]) -> dict[str, Job]:
    """The named jobs and all jobs that they need, in the order of the graph."""
    wanted, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += graph[name].needs
    return {name: job for name, job in graph.items() if name in wanted}
