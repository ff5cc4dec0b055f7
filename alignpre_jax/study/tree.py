"""The tree of a study's runs says which run every arm and seed has at every stage, and which runs are the same.

An arm goes through the tree of stages from its root to every leaf. Arms that have changed nothing yet, or have made the
same changes, have an equal history, and one run serves them all. So a run is named by its stage and the first arm that
goes through it: STAGE where that is the baseline, STAGE-ARM elsewhere. Two runs of a seed never have the same name,
because an arm has exactly one run of a stage.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

from alignpre_jax.foundation import UserError, derive_seed, exact, suggest
from alignpre_jax.mixture import Remove, Replace, parse_shares
from alignpre_jax.study.config import StudyConfig

Overlay = Replace | Remove
Path = tuple[tuple[str, tuple[Overlay, ...]], ...]  # ((stage, the arm's overlays there), ...), from the first stage on


@dataclasses.dataclass(frozen=True)
class StageRun:
    """A training run is a stage, a seed, and what was changed at this stage and at the stages before it."""

    name: str  # "seed0/STAGE" or "seed0/STAGE-ARM": also its folder below WORKDIR/train
    seed: int
    path: Path
    parent: str  # the name of the run it goes on from; empty: init_from or a fresh model
    reference: str  # the name of the run whose model the objective compares with; empty: none
    arms: tuple[str, ...]  # the arms that go through it

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.path[-1][0]

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """The overlays that are laid over this stage's base plan."""
        return self.path[-1][1]


class Tree(Mapping[str, StageRun]):
    """All runs of a study by name, each after the runs that it needs. It is built once per study and handed on."""

    def __init__(self, config: StudyConfig):
        self.config = config
        self._runs: dict[str, StageRun] = {}
        self._names: dict[tuple[str, str, int], str] = {}  # (arm, stage, seed) -> the run's name
        self._of_history: dict[tuple[int, Path], str] = {}
        for seed in config.seeds:
            for stage in config.stages:
                for arm in config.arms:
                    if stage not in config.arms[arm].skip:
                        self._add(arm, stage, seed)

    def _add(self, arm: str, stage: str, seed: int) -> None:
        config = self.config
        way = config.way(arm, stage)
        path = tuple((name, overlays(config, arm, name, seed)) for name in way)
        label = stage if arm == config.baseline else f"{stage}-{arm}"
        name = self._of_history.setdefault((seed, path), f"seed{seed}/{label}")
        if name not in self._runs:
            parent = self._names[arm, way[-2], seed] if len(way) > 1 else ""
            self._runs[name] = StageRun(name, seed, path, parent, self._reference(arm, stage, seed), ())
        self._runs[name] = dataclasses.replace(self._runs[name], arms=(*self._runs[name].arms, arm))
        self._names[arm, stage, seed] = name

    def _reference(self, arm: str, stage: str, seed: int) -> str:
        named = self.config.stages[stage].reference
        if not named:
            return ""
        of_arm, _, of_stage = named.rpartition("/")
        found = self._names.get((of_arm or arm, of_stage, seed))
        if found is None:
            fix = "name a stage that comes before it in the tree"
            raise UserError(f"{named!r} is trained later", where=f"stages.{stage}.reference", fix=fix)
        return found

    def run(self, arm: str, seed: int, stage: str = "") -> StageRun:
        """The run of an arm, a seed and a stage; without a stage, the arm's last on the way to the study's main node.

        Raises:
          UserError: there is no such arm, seed or stage, or the arm skips the stage.
        """
        config = self.config
        if arm not in config.arms:
            raise UserError(f"no arm is named {arm!r}", where="--arm", fix=suggest(arm, config.arms))
        if seed not in config.seeds:
            raise UserError(f"the study has no seed {seed}", where="--seed", fix=f"seeds: {config.seeds}")
        stage = stage or next(reversed(config.way(arm, config.main_node)), config.main_node)
        if (arm, stage, seed) not in self._names:
            had = config.stages_of(arm)
            raise UserError(f"arm {arm!r} has no stage {stage!r}", where="--stage", fix=suggest(stage, had))
        return self._runs[self._names[arm, stage, seed]]

    def way(self, run: StageRun) -> list[StageRun]:
        """The runs that lead to `run`, from that of the first stage to `run` itself."""
        found = [run]
        while found[0].parent:
            found.insert(0, self._runs[found[0].parent])
        return found

    def of_stage(self, stage: str, seed: int) -> list[StageRun]:
        """The runs of a stage and a seed, in the order of the arms."""
        return [run for run in self._runs.values() if (run.stage, run.seed) == (stage, seed)]

    def __getitem__(self, name: str) -> StageRun:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


def overlays(config: StudyConfig, arm: str, stage: str, seed: int) -> tuple[Overlay, ...]:
    """The overlays by which an arm changes a stage.

    Which slots they prefer depends on the seed, the stage and the windows of a schedule, but not on the arm or the
    dose: so the slots of a smaller dose are among those of a larger one.
    """
    change = config.arms[arm]
    found: list[Overlay] = []
    if stage in change.filter:
        how = change.filter[stage]
        mixture = parse_shares(config.stages[stage].mixture)
        for stratum, refill, keep in how.removals:
            assert stratum in mixture, stratum
            seed_of = derive_seed(seed, stage, "remove", stratum)
            most = how.refill_epochs or math.inf
            found.append(Remove(stratum, refill, seed=seed_of, keep=exact(keep), max_epochs=most))
    if stage in change.add:
        add = change.add[stage]
        seed_of = derive_seed(seed, stage, "replace")
        found.append(Replace(mixture=add.mixture, dose=exact(add.dose), seed=seed_of, schedule=add.schedule))
    return tuple(found)
