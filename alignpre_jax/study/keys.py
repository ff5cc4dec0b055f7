"""What each thing that a study makes depends on: its recipe, and the recipe's digest, its key.

Things with the same key are the same, whatever they are called: a study that grows, and the studies of a sweep, know
by it what is there already. A recipe names what it is made of by keys, so that a difference between two recipes shows
where it is, and not everything behind it. Nothing is in a recipe that changes no number (`loop`, names of arms).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignpre_jax.evals import Capabilities, HeldOut, Scenarios, load_suite
from alignpre_jax.evals.formats.tasks import read_task
from alignpre_jax.evals.suites import SMALL_WORLD
from alignpre_jax.foundation import digest, to_mapping
from alignpre_jax.mixture import parse_shares
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.graph import evals_of, job_graph
from alignpre_jax.study.tree import StageRun, Tree

Recipe = Mapping[str, Any]


class Recipes:
    """The recipes and keys of all that a study makes."""

    def __init__(self, tree: Tree):
        self._tree, self._config = tree, tree.config
        self._model = to_mapping(self._config.model.architecture)
        self._sources: dict[str, str] = {}
        for name in self._ordered():
            self._sources[name] = digest(self.source(name))
        self._runs: dict[str, str] = {}
        self._suites: dict[str, str] = {}
        for name, run in tree.items():
            self._runs[name] = digest(self.run(run))

    def imported(self) -> Recipe:
        """Of the model that all arms start from."""
        return {"init_from": self._config.init_from, "model": self._model}

    def source(self, name: str) -> Recipe:
        """Of a source's documents."""
        data = self._config.data
        source = data.sources[name]
        recipe: dict[str, Any] = {
            "source": to_mapping(source),
            "max_bad_share": data.max_bad_share,
            "duplicates": data.duplicates,
        }
        if data.duplicates == "near":
            recipe["near"] = to_mapping(data.near)
        if source.strata == "discourse":
            recipe["detector"] = to_mapping(data.detector)
        if any(each.startswith("world:") for each in source.inputs):
            recipe["world"] = to_mapping(data.world)
        if source.of:
            recipe["of"] = self._sources[source.of]
        return recipe

    def tokenizer(self) -> Recipe:
        """Of the tokenizer: a file, the imported model's, or trained on the background."""
        config = self._config
        if config.init_from:
            return {"imported": digest(self.imported())}
        if config.data.tokenizer:
            return {"tokenizer": config.data.tokenizer}
        return {"background": self._sources[config.data.background], "vocab_size": config.model.vocab_size}

    def run(self, run: StageRun) -> Recipe:
        """Of a training run."""
        config, stage = self._config, self._config.stages[run.stage]
        strata = strata_of_stage(config, run.stage, run)
        recipe: dict[str, Any] = {
            "name": run.stage,  # the order of rows depends on it
            "stage": {key: value for key, value in to_mapping(stage).items() if key not in ("after", "reference")},
            "overlays": {f"{n} {type(each).__name__}": to_mapping(each) for n, each in enumerate(run.overlays)},
            "seed": run.seed,
            "sources": {name: self._sources[name] for name in dict.fromkeys(each.partition("/")[0] for each in strata)},
            "tokenizer": digest(self.tokenizer()),
            "model": self._model,
        }
        if run.parent:
            recipe["goes on from"] = self._runs[run.parent]
        elif config.init_from:
            recipe["goes on from"] = digest(self.imported())
        if run.reference:
            recipe["reference"] = self._runs[run.reference]
        return recipe

    def evaluation(self, run: StageRun, name: str) -> Recipe:
        """Of the answers that a run's last checkpoint gives to an eval."""
        asked = self._config.evals[name]
        when = ("at", "every_steps", "every_tokens", "headline")  # changes no answer
        recipe: dict[str, Any] = {"eval": {key: value for key, value in to_mapping(asked).items() if key not in when}}
        if isinstance(asked, Scenarios):
            recipe["suite"] = self.suite(asked.suite)
        if isinstance(asked, HeldOut):
            recipe["source"] = self._sources[asked.source]
        if isinstance(asked, Capabilities):
            recipe["tasks"] = {task: digest(to_mapping(read_task(task))) for task in asked.tasks}
        return recipe | {"run": self._runs[run.name]}

    def suite(self, name: str) -> str:
        """Names the scenarios of a suite by what they say."""
        world = self._config.data.world
        if name not in self._suites:
            composed = name == SMALL_WORLD  # a function of the world alone, and it takes seconds
            said = to_mapping(world) if composed else [to_mapping(scenario) for scenario in load_suite(name, world)]
            self._suites[name] = digest([name if composed else "", said])
        return self._suites[name]

    def key(self, run: str) -> str:
        """The key of a training run."""
        return self._runs[run]

    def of_jobs(self) -> dict[str, str]:
        """The key of every job by its name: 16 hex digits."""
        keys: dict[str, str] = {}
        for job in job_graph(self._tree).values():
            if job.kind == "import":
                keys[job.name] = digest(self.imported())
            elif job.kind == "prepare":
                keys[job.name] = self.data()
            elif job.kind == "train":
                found = [self._runs[run] for run in job.runs]
                keys[job.name] = digest(found) if job.others else found[0]
                during = {name: to_mapping(each) for name, each in self._config.evals.items() if each.is_in_loop}
                if during:  # evals during training are in the run's folder
                    keys[job.name] = digest([keys[job.name], during])
            else:
                run = self._tree[job.run]
                found = [digest([name, self.evaluation(run, name)]) for name in evals_of(self._config, run)]
                keys[job.name] = digest(["eval", *found])
        return keys

    def data(self) -> str:
        """The key of all prepared data: documents, tokenizer, rows."""
        config = self._config
        rows = {name: [to_mapping(stage.rows), strata_of_stage(config, name)] for name, stage in config.stages.items()}
        made = [self._sources, self.tokenizer(), sorted(rows.values(), key=str), config.data.rows_url]
        return digest(["prepare", *made])

    def _ordered(self) -> list[str]:
        """Sources that are made of others come last."""
        sources = self._config.data.sources
        return sorted(sources, key=lambda name: bool(sources[name].of))


def strata_of_stage(config: StudyConfig, stage: str, run: StageRun | None = None) -> list[str]:
    """The strata that a stage's rows come from, in the study's order: those of all its arms, or of one run."""
    used = set(parse_shares(config.stages[stage].mixture))
    for arm in config.arms if run is None else run.arms:
        change = config.arms[arm]
        if stage in change.add:
            used |= set(change.add[stage].shares)
        if stage in change.filter:
            used |= set(change.filter[stage].refill)
    return [stratum for stratum in config.data.strata() if stratum in used]
