"""What a report is made from: the records that a study's jobs leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import Result, Scenario, TextScore
from alignpre_jax.evals.capabilities import Solution
from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.mixture import Ledger
from alignpre_jax.study.config import StudyConfig


@dataclasses.dataclass(frozen=True)
class StageTime:
    """How long one training run took, compilation and checkpoints included."""

    stage: str
    tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Moment:
    """What an arm answered during training: the headline eval after so many steps of a stage."""

    stage: str
    step: int
    tokens: int  # of the arm's training up to here, all stages together
    results: Mapping[int, Sequence[Result]]  # by seed


@dataclasses.dataclass(frozen=True)
class StudyRecords:
    """Everything that a study's report is computed from.

    Attributes:
      config: the study's config, which also gives the order of arms and seeds.
      scenarios: the suite, for the texts of the example items.
      results: arm -> seed -> result rows.
      texts: arm -> seed -> scores of the held-out background texts; may be empty.
      ledgers: arm -> stage -> ledger, of the first seed (every seed has the same counts).
      times: one per training run; runs that several arms share come once.
      versions: what the numbers depend on besides the config.
      reproduce: the exact command that makes this study again.
      overlap: of every stratum and arm ("arm NAME") with every split; see `study.overlap.measure`.
      solutions: arm -> seed -> answers to capability tasks; may be empty.
      moments: arm -> evals during training, in order; may be empty.
    """

    config: StudyConfig
    scenarios: Sequence[Scenario]
    results: Mapping[str, Mapping[int, Sequence[Result]]]
    texts: Mapping[str, Mapping[int, Sequence[TextScore]]]
    ledgers: Mapping[str, Mapping[str, Ledger]]
    times: Sequence[StageTime]
    versions: Mapping[str, Any]
    reproduce: str
    solutions: Mapping[str, Mapping[int, Sequence[Solution]]] = dataclasses.field(default_factory=dict)
    moments: Mapping[str, Sequence[Moment]] = dataclasses.field(default_factory=dict)
    overlap: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self):
        for arm in self.config.arms:
            missing = [seed for seed in self.config.seeds if not self.results.get(arm, {}).get(seed)]
            if missing:
                raise UserError(
                    f"arm {arm!r} has no results for seed {missing[0]}",
                    where="evals",
                    fix="run the study to its end; the same command goes on where it stopped",
                )
        for arm in self.results:
            if arm not in self.config.arms:
                raise UserError(
                    f"results of an arm {arm!r} that the study does not have", fix=suggest(arm, self.config.arms)
                )
