"""A report is made from these records, which a study's jobs leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import Result, Shown, TextScore
from alignpre_jax.evals.capabilities import Solution
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Ledger
from alignpre_jax.study.config import StudyConfig

# Rows are kept by eval, then stage, then arm, then seed. Arms that share a run have the same rows.
Results = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[Result]]]]]
Texts = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[TextScore]]]]]
Solutions = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[Solution]]]]]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """The facts of one training run: how long it took, compilation and checkpoints included, and its versions."""

    name: str
    stage: str
    tokens: int
    learnt_tokens: int  # targets of the loss: no padding, no prompts
    seconds: float
    versions: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Moment:
    """What an arm answered to an eval during training; of an eval of scenarios only the headline is asked then."""

    eval: str
    stage: str
    step: int
    tokens: int  # that the arm has been trained on so far, in all stages on its way together
    results: Mapping[int, Sequence[Any]]  # rows of the eval's kind, by seed


@dataclasses.dataclass(frozen=True)
class StudyRecords:
    """Everything that a study's report is computed from.

    Attributes:
      config: the study's config, which also gives the order of arms, seeds and stages.
      results: the rows of the evals of scenarios.
      shown: what the scenarios of these evals look like; may be empty.
      texts: the rows of the evals of held-out text; may be empty.
      solutions: the rows of the evals of capabilities; may be empty.
      ledgers: arm -> stage -> the ledger of the first seed. Other seeds have the same totals and doses, but a dose may
        take the place of a few more or fewer rows of one stratum of the mixture.
      runs: the facts of every training run; a run that several arms share is listed once.
      versions: the versions with which the report is made (see `made.versions`); each run has its own.
      reproduce: the exact command that makes this study again.
      overlap: the overlap of every stratum and arm ("arm NAME") with every split; see `study.overlap.measure`.
      moments: arm -> what it answered during training, in order; may be empty.
    """

    config: StudyConfig
    results: Results
    ledgers: Mapping[str, Mapping[str, Ledger]]
    runs: Sequence[RunFacts]
    versions: Mapping[str, Any]
    reproduce: str
    shown: Mapping[str, Shown] = dataclasses.field(default_factory=dict)
    texts: Texts = dataclasses.field(default_factory=dict)
    solutions: Solutions = dataclasses.field(default_factory=dict)
    moments: Mapping[str, Sequence[Moment]] = dataclasses.field(default_factory=dict)
    overlap: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self):
        """Refuses records in which a seed of an arm has no answers to an eval at a stage that the arm goes through."""
        for kind in (self.results, self.texts, self.solutions):
            for name, by_stage in kind.items():
                for stage, by_arm in by_stage.items():
                    for arm in self.config.arms:
                        if stage not in self.config.stages_of(arm):
                            continue
                        for seed in self.config.seeds:
                            if not by_arm.get(arm, {}).get(seed):
                                raise UserError(
                                    f"arm {arm!r} has no answers to eval {name!r} at stage {stage!r} for seed {seed}",
                                    where="evals",
                                    fix="run the study to its end; the same command goes on where it stopped",
                                )
