"""Measures the alignment tax: how much worse an arm predicts ordinary text that nobody trained on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from alignpre_jax.documents import Document
from alignpre_jax.evals.due import Due
from alignpre_jax.evals.scoring import Scored
from alignpre_jax.evals.statistics import Estimate, Observation, estimate, paired_difference
from alignpre_jax.foundation import Event, Report, UserError, digest, silent

TEXTS_PER_CALL = 64  # between two reports of progress


class TextScorer(Protocol):
    """A model that scores whole texts."""

    def rolling(self, texts: Sequence[str]) -> Sequence[Scored]:
        """Returns the log-prob of each whole text."""


@dataclasses.dataclass(frozen=True)
class HeldOut(Due):
    """An eval of the loss on documents of a source that nobody trains on.

    On the background the loss is the alignment tax; on a source that an arm adds, it shows whether that was learnt.
    """

    source: str
    documents: int = 256  # at most this many, a seeded sample of what is held out, ...
    characters: int = 500  # ... of each of which only the beginning of this length is scored
    kind: Literal["held_out"] = "held_out"

    def __post_init__(self):
        super().__post_init__()
        for name in ("documents", "characters"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is less than 1", where=name, fix="give 1 or more")


@dataclasses.dataclass(frozen=True)
class TextScore:
    """How well one text was predicted, as its negative log-likelihood in nats over all its tokens."""

    document: str
    source: str
    nll: float
    tokens: int
    bytes: int
    asked: str  # a digest of the text

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON-ready values; its inverse is `TextScore(**row)`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss on one source's held-out texts, in nats per token, and the same per UTF-8 byte in bits."""

    loss: Estimate
    bits_per_byte: float
    tokens: int  # of the texts, each counted once whatever the number of seeds
    documents: int

    @property
    def perplexity(self) -> float:
        """The perplexity per token, exp(loss)."""
        return math.exp(self.loss.value)


TextsBySeed = Mapping[int, Sequence[TextScore]]


def score_texts(
    engine: TextScorer, documents: Sequence[Document], checkpoint: str, report: Report = silent
) -> list[TextScore]:
    """Returns the negative log-likelihood of every document, in their order; a document's source is its stratum."""
    scores: list[TextScore] = []
    for start in range(0, len(documents), TEXTS_PER_CALL):
        batch = documents[start : start + TEXTS_PER_CALL]
        found = engine.rolling([document.text for document in batch])
        for document, score in zip(batch, found, strict=True):
            data = document.text.encode()
            found_of_text = (-float(score.logprob), score.tokens, len(data), digest(data))
            scores.append(TextScore(document.id, document.stratum, *found_of_text))
        report(Event(f"tax {checkpoint}", len(scores), len(documents)))
    return scores


def token_loss(results: TextsBySeed) -> Loss:
    """Returns the loss per token over all texts given, clustered by document and seed."""
    loss = estimate(_observations(results))
    rows = [row for of_seed in results.values() for row in of_seed]
    bits = math.fsum(row.nll for row in rows) / math.log(2) / sum(row.bytes for row in rows)
    once = {(row.source, row.document): row for row in rows}
    return Loss(loss, bits, sum(row.tokens for row in once.values()), len(once))


def loss_difference(arm: TextsBySeed, baseline: TextsBySeed) -> Estimate:
    """Returns the alignment tax, which is the paired difference of the loss per token, arm - baseline, on the same
    texts and seeds."""
    return paired_difference(_observations(arm), _observations(baseline))


def _observations(results: TextsBySeed) -> Iterator[Observation]:
    """Yields values whose plain mean is the loss per token, sum(nll) / sum(tokens), and whose spread is that ratio's.

    They are the ratio's Taylor linearisation, loss + (nll - loss * tokens) / mean(tokens): long texts weigh more, but
    the difference in their lengths adds no variance.
    """
    rows = [row for of_seed in results.values() for row in of_seed]
    tokens = sum(row.tokens for row in rows)
    if not tokens:
        raise UserError("no held-out text was scored", where="tax", fix="hold out a larger share of the background")
    loss = math.fsum(row.nll for row in rows) / tokens
    length = tokens / len(rows)
    for seed, of_seed in results.items():
        for row in of_seed:
            value = loss + (row.nll - loss * row.tokens) / length
            yield Observation((row.source, row.document), row.document, seed, value, row.asked)
