"""A study as a graph of jobs: what must run, in which order, and what is shared.

Arms that agree on everything up to a stage share its run: a stage's run is named by what
determines it (seed, and the overlays of this and all earlier stages), never by the arm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from alignpre_jax.foundation import UserError, derive_seed, exact, suggest
from alignpre_jax.mixture import Remove, Replace, parse_shares
from alignpre_jax.study.config import ArmConfig, StudyConfig

Overlay = Replace | Remove


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One training run: a stage, a seed, and the overlays along the way to it.

    `path` is ((stage, overlays), ...) from the first stage to this one.
    """

    name: str  # also its folder below WORKDIR/train
    seed: int
    path: tuple[tuple[str, tuple[Overlay, ...]], ...]
    parent: str  # name of the run it starts from; empty for a fresh model
    arms: tuple[str, ...]  # the arms that go through it

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.path[-1][0]

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """The overlays on this stage's base plan."""
        return self.path[-1][1]


@dataclasses.dataclass(frozen=True)
class Job:
    """A unit of work that a process can take: `kind` is import, prepare, train or eval."""

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    run: str = ""  # the StageRun that a train or eval job is about
    others: tuple[str, ...] = ()  # runs of further seeds that are trained in the same program

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs that it is about."""
        return (self.run, *self.others) if self.run else ()


def overlays(config: StudyConfig, arm: ArmConfig, stage: str, seed: int) -> tuple[Overlay, ...]:
    """The overlays of an arm on a stage. Which slots they take depends on the seed, not on the arm or the dose."""
    if stage not in arm.placement:
        return ()
    mixture = parse_shares(config.stages[stage].mixture)
    found: list[Overlay] = [
        Remove(
            stratum,
            refill,
            seed=derive_seed(seed, stage, "remove", stratum),
            keep=exact(keep),
            max_epochs=arm.refill_epochs or math.inf,
        )
        for stratum, refill, keep in arm.removals
        if stratum in mixture
    ]
    if arm.source:
        seed_of = derive_seed(seed, stage, "replace")
        found.append(Replace(mixture=arm.source, dose=exact(arm.dose), seed=seed_of, schedule=arm.schedule))
    return tuple(found)


def stage_runs(config: StudyConfig) -> dict[str, StageRun]:
    """All training runs of a study by name, parents before children."""
    by_key: dict[tuple, StageRun] = {}
    for seed in config.seeds:
        for arm_name, arm in config.arms.items():
            parent: str = ""
            path: tuple[tuple[str, tuple[Overlay, ...]], ...] = ()
            for stage in arm.stages:
                path = (*path, (stage, overlays(config, arm, stage, seed)))
                run = by_key.get((seed, path))
                if run is None:
                    touched = any(found for _, found in path)
                    label = f"{stage}-{arm_name}" if touched else stage
                    run = StageRun(f"seed{seed}/{label}", seed, path, parent, ())
                run = dataclasses.replace(run, arms=(*run.arms, arm_name))
                by_key[seed, path] = run
                parent = run.name
    return {run.name: run for run in by_key.values()}


def final_run(config: StudyConfig, runs: dict[str, StageRun], arm: str, seed: int) -> StageRun:
    """The run whose last checkpoint is the arm's model."""
    if arm not in config.arms:
        raise UserError(f"no arm is named {arm!r}", where="--arm", fix=suggest(arm, config.arms))
    if seed not in config.seeds:
        raise UserError(f"the study has no seed {seed}", where="--seed", fix=f"seeds: {config.seeds}")
    last = config.arms[arm].stages[-1]
    return next(run for run in runs.values() if run.seed == seed and arm in run.arms and run.stage == last)


def run_path(runs: dict[str, StageRun], last: StageRun) -> list[StageRun]:
    """The runs from the first stage to `last`."""
    found = [last]
    while found[0].parent:
        found.insert(0, runs[found[0].parent])
    return found


def jobs(config: StudyConfig) -> dict[str, Job]:
    """The study's jobs by name: import and prepare, then a train job per run, then an eval job per final run.

    With `vmap_seeds` above 1 a train job is about that many seeds of a run: "train/seed0+1/midtrain".
    """
    runs = stage_runs(config)
    trained_by = {run.name: _train_job(config, run) for run in runs.values()}
    found = [Job("import", "import")] if config.init_from else []
    found += [Job("prepare", "prepare", tuple(job.name for job in found))]
    for name in dict.fromkeys(trained_by.values()):
        first, *others = (run for run in runs if trained_by[run] == name)
        parent = trained_by[runs[first].parent] if runs[first].parent else "prepare"
        found.append(Job(name, "train", (parent,), first, tuple(others)))
    finals = {final_run(config, runs, arm, seed).name for arm in config.arms for seed in config.seeds}
    found += [Job(f"eval/{name}", "eval", (trained_by[name],), name) for name in runs if name in finals]
    return {job.name: job for job in found}


def _train_job(config: StudyConfig, run: StageRun) -> str:
    """The name of the job that trains a run."""
    first = config.seeds.index(run.seed) // config.vmap_seeds * config.vmap_seeds
    seeds = "+".join(map(str, config.seeds[first : first + config.vmap_seeds]))
    return f"train/seed{seeds}/{run.name.partition('/')[2]}"


def with_needs(graph: dict[str, Job], names: Iterable[str]) -> dict[str, Job]:
    """The part of the graph that the named jobs need, themselves included, in the graph's order."""
    wanted, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += graph[name].needs
    return {name: job for name, job in graph.items() if name in wanted}
