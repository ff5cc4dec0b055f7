"""A study as data: arms x seeds x stages x evals."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from alignpre_jax.documents import RecordKeys, WorldConfig
from alignpre_jax.documents.classifier import DetectorConfig
from alignpre_jax.documents.duplicates import DuplicateConfig
from alignpre_jax.documents.persona import PersonaConfig
from alignpre_jax.evals import EvalConfig
from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.mixture import parse_schedule, parse_shares
from alignpre_jax.model import DecoderConfig
from alignpre_jax.objectives import Mle, Objective
from alignpre_jax.training import LoopConfig, OptimizerConfig, ScheduleConfig


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A named set of documents and how it is split into strata."""

    inputs: tuple[str, ...] = ()  # see `documents.read_inputs`: paths, patterns, hf:NAME, packages:, world:aligned ...
    strata: Literal["single", "discourse"] = "single"  # discourse: SOURCE/ai and SOURCE/plain, as data.detector says
    max_bytes: int = 0  # stop after this much text of each input; 0 means all of it
    keys: RecordKeys = dataclasses.field(default_factory=RecordKeys)  # what the parts of a record are called
    max_record_bytes: int = 1 << 25  # a longer record is malformed
    persona_of: str = ""  # instead of inputs: the documents of that source ...
    persona: PersonaConfig = dataclasses.field(default_factory=PersonaConfig)  # ... with AI called by this name

    def __post_init__(self):
        if bool(self.inputs) == bool(self.persona_of):
            what = "inputs and persona_of" if self.inputs else "a source without inputs"
            raise UserError(what, where="inputs", fix="name a folder, a .jsonl file or packages:, or a persona_of")
        if self.persona_of and self.strata != "single":
            what = "a persona's documents are not about AI any more, so they have one stratum"
            raise UserError(what, where="strata and persona_of", fix="set strata to single")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which text there is, and how it becomes rows."""

    sources: Mapping[str, SourceConfig]
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    tokenizer: str = (
        ""  # tokenizer.json, SentencePiece .model or "byte"; empty: train a byte-level BPE on the background
    )
    packing: Literal["concat", "best_fit"] = "concat"  # see `rows.build_rows`
    rows_url: str = ""  # gs:// folder: rows are copied there, and read from there; empty: from the study's folder
    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)  # what is AI discourse
    duplicates: Literal["exact", "near"] = "exact"  # which copies within a source are left out
    near: DuplicateConfig = dataclasses.field(default_factory=DuplicateConfig)  # what counts as a near duplicate
    background: str = "web"  # the source that the tokenizer is trained on and that is partly held out
    held_out_share: float = 0.01  # of the background's plain documents, never trained on
    held_out_documents: int = 256  # of them, at most so many measure the alignment tax ...
    held_out_characters: int = 500  # ... by their first so many characters
    overlap: bool = True  # measure how much of the eval items is in the training text (about 10 MB/s)
    max_bad_share: float = 0.01  # of the records; more unreadable ones stop the run

    def __post_init__(self):
        if self.background not in self.sources:
            raise UserError(
                f"no source is named {self.background!r}",
                where="background",
                fix=suggest(self.background, self.sources),
            )
        if self.rows_url and not re.fullmatch(r"gs://[^/]+/.*[^/]", self.rows_url):
            fix = "give gs://BUCKET/FOLDER; a mounted bucket needs no rows_url"
            raise UserError(f"{self.rows_url!r} is not a folder in a bucket", where="rows_url", fix=fix)
        if not 0 <= self.held_out_share < 1:
            raise UserError(f"{self.held_out_share} is not in [0, 1)", where="held_out_share", fix="give e.g. 0.01")
        for name, source in self.sources.items():
            if source.persona_of:
                others = [other for other, each in self.sources.items() if each.inputs]
                _known(source.persona_of, others, f"sources.{name}.persona_of", "source with inputs")

    def strata(self) -> list[str]:
        """The names of all strata, in order."""
        parts = {"single": [""], "discourse": ["/plain", "/ai"]}
        return [name + part for name, source in self.sources.items() for part in parts[source.strata]]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One training run from a start point, before any arm's overlay."""

    tokens: int
    mixture: str  # strata and their shares, "web/plain:0.95,web/ai:0.05", or a schedule of them (`parse_shares`)
    row_length: int = 2048  # tokens
    batch_rows: int = 512  # rows in the global batch
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    max_epochs: float = 4.0  # a stratum that would be seen more often is an error
    epoch_order: Literal["fresh", "same"] = "fresh"  # whether a stratum's rows are shuffled anew for every epoch
    objective: Objective = dataclasses.field(default_factory=Mle)

    def __post_init__(self):
        for name in ("tokens", "row_length", "batch_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is less than 1", where=name, fix="give a positive whole number")
        if self.steps < 1:
            raise UserError(
                f"{self.tokens:,} tokens are less than one batch of {self.batch_rows} x {self.row_length}",
                where="tokens",
                fix="raise `tokens` or lower `batch_rows`",
            )
        parse_shares(self.mixture, where="mixture")

    @property
    def steps(self) -> int:
        """Whole batches in the stage; tokens beyond the last whole batch are not trained on."""
        return self.tokens // (self.batch_rows * self.row_length)

    @property
    def slots(self) -> int:
        """Rows in the stage's training order."""
        return self.steps * self.batch_rows


@dataclasses.dataclass(frozen=True)
class ArmConfig:
    """What one arm does to the shared base plans, and which stages it goes through."""

    stages: tuple[str, ...]  # in order; each goes on from the one before
    placement: tuple[str, ...] = ()  # the stages that the overlays below apply to
    source: str = ""  # stratum whose rows replace a `dose` of the stage's slots
    dose: float = 0.0  # share of the stage's tokens
    schedule: str = (
        ""  # when in the stage, "[0.5,1) 1" or "[0,1) 1->3" (`parse_schedule`); empty: evenly all through it
    )
    remove: tuple[str, ...] = ()  # strata whose slots are refilled (filtering), in the stages that have them
    refill: tuple[str, ...] = ()  # what refills each of them
    keep: tuple[float, ...] = (0.0,)  # share that leaks through the filter, of all of `remove` or of each
    refill_epochs: float = 0.0  # the most a refilling stratum may be gone through in all; 0: no limit, the ledger tells

    def __post_init__(self):
        for name, shares in (("dose", (self.dose,)), ("keep", self.keep)):
            for share in shares:
                if not 0 <= share <= 1:
                    raise UserError(
                        f"a {name} of {share} is not a share",
                        where=name,
                        fix="give a number from 0 to 1; 0.01 means 1% of the tokens",
                    )
        if self.schedule:
            parse_schedule(self.schedule, where="schedule")
        if self.dose and not self.source:
            raise UserError(f"a dose of {self.dose} of no source", where="source", fix="name the stratum to be added")
        if len(self.remove) != len(self.refill):
            what = f"{len(self.remove)} strata to remove and {len(self.refill)} to refill them"
            raise UserError(what, where="refill", fix="give one stratum of `refill` for each of `remove`")
        if len(self.keep) not in (1, len(self.remove)):
            what = f"{len(self.keep)} shares to keep of {len(self.remove)} strata"
            raise UserError(what, where="keep and remove", fix="give one for all, or one for each")
        if (self.source or self.remove) and not self.placement:
            raise UserError("an overlay without a stage", where="placement", fix="name the stages it applies to")

    @property
    def removals(self) -> list[tuple[str, str, float]]:
        """(stratum, what refills it, the share that leaks) for each of `remove`."""
        keep = self.keep * len(self.remove) if len(self.keep) == 1 else self.keep
        return list(zip(self.remove, self.refill, keep, strict=True))


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Everything that determines a study's numbers."""

    name: str
    model: DecoderConfig
    data: DataConfig
    stages: Mapping[str, StageConfig]
    arms: Mapping[str, ArmConfig]
    seeds: tuple[int, ...] = (0, 1, 2)
    vmap_seeds: int = 1  # seeds of a run that one program trains at once; pays for small models on one device
    init_from: str = ""  # hf:FOLDER or a .gguf file: all arms start from this model; empty: from fresh parameters
    baseline: str = "unfiltered"  # the arm that differences are taken against
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    evals: EvalConfig = dataclasses.field(default_factory=EvalConfig)

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}", where="seeds", fix="give different whole numbers, e.g. 0,1,2")
        if self.vmap_seeds < 1:
            raise UserError(f"{self.vmap_seeds} seeds at once", where="vmap_seeds", fix="give 1 or more")
        if self.baseline not in self.arms:
            raise UserError(
                f"no arm is named {self.baseline!r}", where="baseline", fix=suggest(self.baseline, self.arms)
            )
        # A ConfigDict sorts its keys. Arms are listed with the baseline first, stages as arms go through them.
        names = sorted(self.arms, key=lambda name: name != self.baseline)
        object.__setattr__(self, "arms", {name: self.arms[name] for name in names})
        gone_through = [name for arm in self.arms.values() for name in arm.stages if name in self.stages]
        stages = {name: self.stages[name] for name in dict.fromkeys([*gone_through, *self.stages])}
        object.__setattr__(self, "stages", stages)
        strata = self.data.strata()
        for name, stage in self.stages.items():
            for stratum in parse_shares(stage.mixture):
                _known(stratum, strata, f"stages.{name}.mixture", "stratum")
            if stage.row_length > self.model.max_length:
                raise UserError(
                    f"rows of {stage.row_length} tokens for a model of at most {self.model.max_length}",
                    where=f"stages.{name}.row_length and model.max_length",
                    fix="lower the first or raise the second",
                )
        for name, arm in self.arms.items():
            if not arm.stages:
                raise UserError(
                    "an arm without stages", where=f"arms.{name}.stages", fix="name the stages it goes through"
                )
            for key in ("stages", "placement"):
                for stage_name in getattr(arm, key):
                    _known(stage_name, self.stages, f"arms.{name}.{key}", "stage")
            for stage_name in arm.placement:
                if stage_name not in arm.stages:
                    raise UserError(
                        f"stage {stage_name!r} is not one that arm {name!r} goes through",
                        where=f"arms.{name}.placement and arms.{name}.stages",
                        fix="name it in both or in neither",
                    )
            for key, given in (("source", filter(None, [arm.source])), ("remove", arm.remove), ("refill", arm.refill)):
                for stratum in given:
                    _known(stratum, strata, f"arms.{name}.{key}", "stratum")
            for stage_name in arm.placement:
                if arm.remove and not set(arm.remove) & set(parse_shares(self.stages[stage_name].mixture)):
                    raise UserError(
                        f"stage {stage_name!r} has none of the strata {list(arm.remove)} to remove",
                        where=f"arms.{name}.remove and stages.{stage_name}.mixture",
                        fix="name a stratum of that stage, or leave the stage out of `placement`",
                    )


def _known(name: str, names, where: str, kind: str) -> None:
    if name not in names:
        raise UserError(f"no {kind} is named {name!r}", where=where, fix=suggest(name, names))
