"""A study is described as data: a tree of stages, arms that colour it, seeds, and the evals that are put on the way."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from alignpre_jax.evals import Capabilities, HeldOut, Scenarios
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Shares, parse_schedule, parse_shares
from alignpre_jax.model import DecoderConfig, Full, Learn
from alignpre_jax.objectives import Mle, Objective
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study.sources import DataConfig, known
from alignpre_jax.training import LoopConfig, OptimizerConfig, ScheduleConfig

Eval = Scenarios | HeldOut | Capabilities


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """A stage is a node of the study's tree: one training run per seed and arm, before any arm's changes."""

    mixture: str  # strata and their shares, "web/plain:0.95,web/ai:0.05", or a schedule of them (`parse_shares`)
    after: str = ""  # the stage it goes on from; empty: init_from, or fresh parameters
    tokens: int = 0  # how long the stage is, in tokens; or else:
    epochs: float = 0.0  # the stage ends when the first of its strata has been gone through this often
    batch_rows: int = 512  # rows in the global batch
    rows: RowsConfig = dataclasses.field(default_factory=RowsConfig)
    max_epochs: float = 4.0  # a stage in which a stratum would be seen more often than this is refused
    epoch_order: Literal["fresh", "same"] = "fresh"  # whether a stratum's rows are shuffled anew for every epoch
    objective: Objective = dataclasses.field(default_factory=Mle)
    reference: str = ""  # for objectives that compare models: a STAGE that the arm has before this one, or ARM/STAGE
    learn: Learn = dataclasses.field(default_factory=Full)  # which part of the model is trained
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)

    def __post_init__(self):
        if self.batch_rows < 1:
            raise UserError(
                f"{self.batch_rows} rows in a batch", where="batch_rows", fix="give a positive whole number"
            )
        if (self.tokens > 0) == (self.epochs > 0) or self.tokens < 0 or self.epochs < 0:
            what = f"{self.tokens} tokens and {self.epochs:g} epochs do not say how long the stage is"
            raise UserError(what, where="tokens and epochs", fix="give one of them, and leave the other at 0")
        if self.tokens and self.tokens < self.batch_tokens:
            raise UserError(
                f"{self.tokens:,} tokens are less than one batch of {self.batch_rows} x {self.rows.length}",
                where="tokens",
                fix="raise `tokens` or lower `batch_rows`",
            )
        parse_shares(self.mixture, where="mixture")
        if bool(self.reference) != self.objective.needs_reference:
            what = (
                f"the objective {self.objective.name!r} compares with nothing"
                if self.reference
                else f"the objective {self.objective.name!r} compares with another model"
            )
            fix = "leave it empty" if self.reference else "name the stage whose model it is, e.g. reference=sft"
            raise UserError(what, where="reference", fix=fix)

    @property
    def batch_tokens(self) -> int:
        """The number of tokens in the global batch."""
        return self.batch_rows * self.rows.length


@dataclasses.dataclass(frozen=True)
class Add:
    """An arm adds text in a stage: rows of a mixture take the place of a share of the stage's rows."""

    mixture: str  # a stratum, shares of strata, or a schedule of them over the stage (`parse_shares`)
    dose: float  # share of the stage's tokens
    schedule: str = ""  # when in the stage it falls, "[0.5,1) 1" or "[0,1) 1->3" (`parse_schedule`); empty: evenly

    def __post_init__(self):
        _share(self.dose, "dose")
        _ = self.shares
        if self.schedule:
            parse_schedule(self.schedule, where="schedule")

    @property
    def shares(self) -> Shares:
        """The strata of the mixture with their shares. A name without a share stands for that stratum alone."""
        return parse_shares(self.mixture if ":" in self.mixture else f"{self.mixture}:1", where="mixture")


@dataclasses.dataclass(frozen=True)
class Filter:
    """An arm filters a stage: rows of other strata take the place of the rows of some strata."""

    remove: tuple[str, ...]  # strata whose slots are refilled
    refill: tuple[str, ...]  # for each of `remove`, the stratum that refills its slots
    keep: tuple[float, ...] = (0.0,)  # the share that leaks through: one for all of `remove`, or one for each
    refill_epochs: float = 0.0  # most passes through a refilling stratum in all; 0: no limit, but the ledger tells

    def __post_init__(self):
        for share in self.keep:
            _share(share, "keep")
        if self.refill_epochs < 0:
            raise UserError(f"{self.refill_epochs} is negative", where="refill_epochs", fix="give 0 for no limit")
        if not self.remove:
            raise UserError(
                "a filter that removes nothing", where="remove", fix="name a stratum, or leave the filter out"
            )
        if len(self.remove) != len(self.refill):
            what = f"{len(self.remove)} strata to remove and {len(self.refill)} to refill them"
            raise UserError(what, where="refill", fix="give one stratum of `refill` for each of `remove`")
        if len(self.keep) not in (1, len(self.remove)):
            what = f"{len(self.keep)} shares to keep of {len(self.remove)} strata"
            raise UserError(what, where="keep and remove", fix="give one for all, or one for each")

    @property
    def removals(self) -> list[tuple[str, str, float]]:
        """A tuple (stratum, the stratum that refills it, the share that leaks) for each of `remove`."""
        keep = self.keep * len(self.remove) if len(self.keep) == 1 else self.keep
        return list(zip(self.remove, self.refill, keep, strict=True))


@dataclasses.dataclass(frozen=True)
class ArmConfig:
    """An arm is what it changes, stage by stage. An arm without changes is trained on the mixtures as they are."""

    add: Mapping[str, Add] = dataclasses.field(default_factory=dict)  # by stage
    filter: Mapping[str, Filter] = dataclasses.field(default_factory=dict)  # by stage
    skip: tuple[str, ...] = ()  # stages that are left out: a stage after a skipped one goes on from the stage before it


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A study's config holds everything that determines its numbers, and `loop`, which changes none of them."""

    name: str
    model: DecoderConfig
    data: DataConfig
    stages: Mapping[str, StageConfig]
    arms: Mapping[str, ArmConfig]
    evals: Mapping[str, Eval]
    headline: str = ""  # the eval of the report's first table; empty: the study's only eval of scenarios
    node: str = ""  # the stage of the report's main tables; empty: the first leaf at which the headline is asked
    baseline: str = "unfiltered"  # the arm that differences are taken against
    seeds: tuple[int, ...] = (0, 1, 2)
    vmap_seeds: int = 1  # seeds of a run that one program trains at once; pays for small models on one device
    init_from: str = ""  # hf:FOLDER or a .gguf file: all arms start from this model; empty: from fresh parameters
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}", where="seeds", fix="give different whole numbers, e.g. 0,1,2")
        if self.vmap_seeds < 1:
            raise UserError(f"{self.vmap_seeds} seeds at once", where="vmap_seeds", fix="give 1 or more")
        known(self.baseline, self.arms, "baseline", "arm")
        for kind, names in (("stages", self.stages), ("arms", self.arms), ("evals", self.evals)):
            for name in names:
                _check_name(name, f"{kind}.{name}", hyphen=kind == "arms")
        # A ConfigDict sorts its keys, so their order says nothing. The baseline is listed before the other arms, and
        # every stage after the stage that it goes on from.
        arms = sorted(self.arms, key=lambda name: name != self.baseline)
        object.__setattr__(self, "arms", {name: self.arms[name] for name in arms})
        object.__setattr__(self, "stages", {name: self.stages[name] for name in _walk(self.stages)})
        for name, stage in self.stages.items():
            self._check_stage(name, stage)
        for name, arm in self.arms.items():
            self._check_arm(name, arm)
        self._check_evals()

    @property
    def leaves(self) -> tuple[str, ...]:
        """The stages that no other stage goes on from, in the order of the tree."""
        inner = {stage.after for stage in self.stages.values()}
        return tuple(name for name in self.stages if name not in inner)

    @property
    def main_node(self) -> str:
        """The stage that is meant where none is named: `node`, else the first leaf at which the headline is asked."""
        asked = self.asked_at(self.headline)
        return self.node or next((leaf for leaf in self.leaves if leaf in asked), asked[-1])

    def asked_at(self, name: str) -> tuple[str, ...]:
        """The stages to whose last checkpoints an eval is put."""
        return self.evals[name].at or self.leaves

    def stages_of(self, arm: str) -> tuple[str, ...]:
        """The stages of which an arm has a run, in the order of the tree."""
        known(arm, self.arms, "--arm", "arm")
        return tuple(name for name in self.stages if name not in self.arms[arm].skip)

    def way(self, arm: str, stage: str) -> tuple[str, ...]:
        """The stages that an arm goes through to reach `stage`, from the first one to `stage` itself."""
        found: list[str] = []
        while stage:
            found.insert(0, stage)
            stage = self.stages[stage].after
        return tuple(name for name in found if name not in self.arms[arm].skip)

    def _check_stage(self, name: str, stage: StageConfig) -> None:
        place = f"stages.{name}"
        strata = list(parse_shares(stage.mixture))
        for stratum in strata:
            known(stratum, self.data.strata(), f"{place}.mixture", "stratum")
        self._check_kinds(strata, f"{place}.mixture")
        kinds = {self.data.kind_of(stratum) for stratum in strata}
        if "pairs" in kinds and "side" not in stage.objective.reads:
            what = f"the objective {stage.objective.name!r} does not tell a chosen answer from a rejected one"
            fix = "give texts or chats, or an objective that compares answers, such as dpo"
            raise UserError(what, where=f"{place}.mixture and {place}.objective", fix=fix)
        if "side" in stage.objective.reads and kinds != {"pairs"}:
            what = f"the objective {stage.objective.name!r} compares the answers of pairs, not texts or chats"
            raise UserError(what, where=f"{place}.mixture and {place}.objective", fix="give a source of kind pairs")
        if "prompts" in kinds:
            what = "there is nothing to learn in prompts: they are for a model to answer"
            raise UserError(what, where=f"{place}.mixture", fix="give texts or chats")
        if stage.rows.length > self.model.max_length:
            raise UserError(
                f"rows of {stage.rows.length} tokens for a model of at most {self.model.max_length}",
                where=f"{place}.rows.length and model.max_length",
                fix="lower the first or raise the second",
            )
        if stage.reference:
            arm, _, of = stage.reference.rpartition("/")
            known(of, self.stages, f"{place}.reference", "stage")
            for each in [arm] if arm else [each for each in self.arms if name in self.stages_of(each)]:
                known(each, self.arms, f"{place}.reference", "arm")
                before = self.stages_of(each) if arm else self.way(each, name)[:-1]
                if of not in before:
                    what = f"arm {each!r} does not have stage {of!r} before {name!r}"
                    raise UserError(what, where=f"{place}.reference", fix=f"name one of {', '.join(before) or 'none'}")

    def _check_arm(self, name: str, arm: ArmConfig) -> None:
        place = f"arms.{name}"
        if name in self.stages:
            fix = "call one of them otherwise: runs are named after both"
            raise UserError(f"{name!r} is an arm and a stage", where=f"{place} and stages.{name}", fix=fix)
        for key in ("add", "filter", "skip"):
            for stage in getattr(arm, key):
                known(stage, self.stages, f"{place}.{key}", "stage")
        for stage in arm.skip:
            if stage in arm.add or stage in arm.filter:
                what = f"stage {stage!r} is skipped, and changed"
                raise UserError(what, where=f"{place}.skip and {place}.add or .filter", fix="leave one of them out")
        if not self.stages_of(name):
            raise UserError("an arm that skips every stage", where=f"{place}.skip", fix="leave a stage in")
        for stage in self.stages_of(name):
            if stage in self.arms[self.baseline].skip:
                what = f"arm {name!r} has stage {stage!r}, and the baseline {self.baseline!r} skips it"
                fix = "arms are compared with the baseline at the same stage: let both have it, or neither"
                raise UserError(what, where=f"arms.{self.baseline}.skip", fix=fix)
        for stage, add in arm.add.items():
            strata = list(add.shares)
            for stratum in strata:
                known(stratum, self.data.strata(), f"{place}.add.{stage}.mixture", "stratum")
            self._check_kinds([*parse_shares(self.stages[stage].mixture), *strata], f"{place}.add.{stage}.mixture")
        for stage, change in arm.filter.items():
            mixture = parse_shares(self.stages[stage].mixture)
            for stratum in change.remove:
                known(stratum, mixture, f"{place}.filter.{stage}.remove", "stratum of that stage")
            for stratum in change.refill:
                known(stratum, self.data.strata(), f"{place}.filter.{stage}.refill", "stratum")
            self._check_kinds([*mixture, *change.refill], f"{place}.filter.{stage}.refill")

    def _check_kinds(self, strata: Iterable[str], where: str) -> None:
        """Refuses strata whose rows cannot stand in one batch: pairs and prompts are read in other ways than texts."""
        sorts: dict[str, str] = {}
        for stratum in strata:
            kind = self.data.kind_of(stratum)
            sorts.setdefault(kind if kind in ("pairs", "prompts") else "texts and chats", stratum)
        if len(sorts) > 1:
            (one, a), (other, b) = list(sorts.items())[:2]
            fix = "give each its own stage"
            raise UserError(f"{a!r} ({one}) and {b!r} ({other}) in one stage", where=where, fix=fix)

    def _check_evals(self) -> None:
        scenarios = [name for name, each in self.evals.items() if isinstance(each, Scenarios)]
        if not scenarios:
            raise UserError("no eval puts scenarios", where="evals", fix="add one, e.g. evals.base = scenarios()")
        if not self.headline and len(scenarios) > 1:
            what = f"which of {', '.join(scenarios)} is the report's first table?"
            raise UserError(what, where="headline", fix="name one of them")
        object.__setattr__(self, "headline", self.headline or scenarios[0])
        known(self.headline, scenarios, "headline", "eval of scenarios")
        if self.node:
            known(self.node, self.asked_at(self.headline), "node", "stage at which the headline is asked")
        for name, each in self.evals.items():
            for stage in each.at:
                known(stage, self.stages, f"evals.{name}.at", "stage")
            if isinstance(each, HeldOut):
                known(each.source, self.data.sources, f"evals.{name}.source", "source")
                if not self.data.sources[each.source].held_out_share:
                    what = f"nothing of the source {each.source!r} is held out"
                    where = f"evals.{name}.source and data.sources.{each.source}.held_out_share"
                    raise UserError(what, where=where, fix="set held_out_share, e.g. to 0.01")


def _walk(stages: Mapping[str, StageConfig]) -> Iterator[str]:
    """Yields the names of the stages, each before the stages that go on from it, one branch after the other."""
    for name, stage in stages.items():
        if stage.after:
            known(stage.after, stages, f"stages.{name}.after", "stage")
    if not stages:
        raise UserError("a study without stages", where="stages", fix="add one: stages.pretrain = stage(...)")
    found: list[str] = []
    todo = [name for name, stage in reversed(list(stages.items())) if not stage.after]
    while todo:
        found.append(name := todo.pop())
        todo += [other for other, stage in reversed(list(stages.items())) if stage.after == name]
    if lost := [name for name in stages if name not in found]:
        what = f"stages {', '.join(lost)} go on from each other in a circle"
        raise UserError(what, where=f"stages.{lost[0]}.after", fix="let one of them start from nothing: after=''")
    return iter(found)


def _share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        fix = "give a number from 0 to 1; 0.01 means 1% of the tokens"
        raise UserError(f"a {name} of {value} is not a share", where=name, fix=fix)


def _check_name(name: str, where: str, *, hyphen: bool) -> None:
    """Refuses a name that cannot be part of a folder's name STAGE-ARM; the first hyphen ends the stage's name."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w-]*" if hyphen else r"[A-Za-z0-9_]+", name):
        allowed = "letters, digits and _" + (" and -" if hyphen else "")
        raise UserError(f"{name!r} cannot be a name here", where=where, fix=f"use {allowed}")
