"""What a report is made from: the records that a study's jobs leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import Result, Shown, TextScore
from alignpre_jax.evals.capabilities import Solution
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Ledger
from alignpre_jax.study.config import StudyConfig

# Rows by eval, then stage, then arm, then seed. Arms that share a run have the same rows.
Results = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[Result]]]]]
Texts = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[TextScore]]]]]
Solutions = Mapping[str, Mapping[str, Mapping[str, Mapping[int, Sequence[Solution]]]]]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """One training run as it was: how long it took, compilation and checkpoints included, and what it ran with."""

    name: str
    stage: str
    tokens: int
    learnt_tokens: int  # targets of the loss: no padding, no prompts
    seconds: float
    versions: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Moment:
    """What an arm answered during training, after so many steps of a stage; of scenarios the eval's headline alone."""

    eval: str
    stage: str
    step: int
    tokens: int  # of the arm's training up to here, all stages on its way together
    results: Mapping[int, Sequence[Any]]  # by seed: rows of the eval's kind


@dataclasses.dataclass(frozen=True)
class StudyRecords:
    """Everything that a study's report is computed from.

    Attributes:
      config: the study's config, which also gives the order of arms, seeds and stages.
      results: rows of the evals of scenarios.
      shown: what the scenarios of these evals look like; may be empty.
      texts: rows of the evals of held-out text; may be empty.
      solutions: rows of the evals of capabilities; may be empty.
      ledgers: arm -> stage -> ledger, of the first seed (every seed has the same counts).
      runs: one per training run; runs that several arms share come once.
      versions: what the numbers depend on besides the config, as the report is made; each run has its own.
      reproduce: the exact command that makes this study again.
      overlap: of every stratum and arm ("arm NAME") with every split; see `study.overlap.measure`.
      moments: arm -> evals during training, in order; may be empty.
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
        """Every arm that has a stage has answers there, of every seed."""
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
