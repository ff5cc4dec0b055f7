"""A detector decides whether a document is AI discourse: by terms, by a classifier, or by terms and then a classifier.

"terms+classifier" is the multi-stage filter of O'Brien et al. 2025 (Deep Ignorance): documents with enough listed terms
go on to the classifier, which looks at overlapping chunks, and one chunk that passes flags the document. Decisions are
made from `Evidence`, which can be kept, so that other thresholds can be tried without reading the text again.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from alignpre_jax.documents.classifier.chunks import split_chunks
from alignpre_jax.documents.classifier.model import BUILTIN, Classifier, load_classifier
from alignpre_jax.documents.discourse import Hits, Rule, discourse_hits
from alignpre_jax.foundation import UserError

Kind = Literal["terms", "terms+classifier", "classifier"]


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """A `DetectorConfig` says how AI discourse is recognised.

    Attributes:
      kind: decides by the term lists ("terms"), by the classifier ("classifier"), or by the classifier where the terms
        ask for it ("terms+classifier").
      rule: how many listed terms flag a document; used by "terms".
      escalate: which documents "terms+classifier" shows to the classifier: by default all that mention an AI.
        `Rule(negatives=0, terms=2)` wants two different terms, as O'Brien et al. do, whose documents are long; it
        misses most short documents.
      classifier: "builtin", or a model file.
      threshold: a chunk passes if its probability is at least this.
      chunk_words, overlap_words: the length and the overlap of the chunks that the classifier looks at.
    """

    kind: Kind = "terms"
    rule: Rule = dataclasses.field(default_factory=Rule)
    escalate: Rule = dataclasses.field(default_factory=lambda: Rule(negatives=0))
    classifier: str = BUILTIN
    threshold: float = 0.5
    chunk_words: int = 400
    overlap_words: int = 80

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            fix = "give a probability between 0 and 1; lower flags more"
            raise UserError(f"{self.threshold} is no threshold", where="threshold", fix=fix)
        split_chunks("", self.chunk_words, self.overlap_words)  # raises an error if the two do not fit together


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence is what is known about a document; it suffices for every decision that it was gathered for.

    Attributes:
      hits: the listed terms in the document; None where the terms were not looked for.
      probabilities: the classifier's probability of each chunk; None where the classifier was not asked.
    """

    hits: Hits | None = None
    probabilities: tuple[float, ...] | None = None

    @property
    def probability(self) -> float | None:
        """The probability of the chunk that is most likely AI discourse; None where the classifier was not asked."""
        return max(self.probabilities) if self.probabilities else None

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-ready values, which `from_json` reads."""
        hits = self.hits.to_json() if self.hits is not None else None
        return {"hits": hits, "probabilities": self.probabilities and list(self.probabilities)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Evidence:
        """Returns the evidence that `to_json` wrote."""
        hits, probabilities = row["hits"], row["probabilities"]
        return cls(
            hits=Hits.from_json(hits) if hits is not None else None,
            probabilities=tuple(probabilities) if probabilities is not None else None,
        )


def decide(evidence: Evidence, config: DetectorConfig) -> bool:
    """Decides whether a document is AI discourse.

    Raises:
      UserError: if the evidence was gathered for another kind of detector and does not suffice.
    """
    if config.kind != "classifier":
        if evidence.hits is None:
            raise _missing("the terms", config)
        if config.kind == "terms":
            return config.rule.flags(evidence.hits)
        if not config.escalate.flags(evidence.hits):
            return False
    if evidence.probability is None:
        raise _missing("the classifier's probabilities", config)
    return evidence.probability >= config.threshold


class Detector:
    """A `Detector` applies a `DetectorConfig`: `detector(text)` says whether a text is AI discourse."""

    def __init__(self, config: DetectorConfig, classifier: Classifier | None = None):
        """Loads the classifier that the config names, unless one is given."""
        self.config = config
        self._classifier = classifier or (load_classifier(config.classifier) if config.kind != "terms" else None)

    def __call__(self, text: str) -> bool:
        """Decides whether a text is AI discourse; the classifier is not asked where the terms alone decide."""
        return decide(self.evidence(text), self.config)

    def evidence(self, text: str, *, in_full: bool = False) -> Evidence:
        """Gathers what the decision about a text needs, or with `in_full` both the terms and the probabilities."""
        config = self.config
        hits = discourse_hits(text) if in_full or config.kind != "classifier" else None
        asked = config.kind == "classifier" or (
            config.kind == "terms+classifier" and hits is not None and config.escalate.flags(hits)
        )
        if not (asked or in_full) or self._classifier is None:
            return Evidence(hits)
        chunks = split_chunks(text, config.chunk_words, config.overlap_words)
        return Evidence(hits, tuple(float(p) for p in self._classifier.probability(chunks)))


def _missing(what: str, config: DetectorConfig) -> UserError:
    return UserError(f"{what} of a document are not known", where="kind", fix=f"gather evidence for {config.kind!r}")
