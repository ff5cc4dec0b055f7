import math

import answer_stubs as stubs
import numpy as np
import pytest

from alignpre_jax.documents import Document
from alignpre_jax.evals import TextScore, loss_difference, score_texts, token_loss
from alignpre_jax.foundation import UserError, digest


class RollingStub:
    """Two nats for every character."""

    def rolling(self, texts):
        return [stubs.Score(-2.0 * len(text), len(text)) for text in texts]


def scores(seed: int, extra: float = 0.0) -> list[TextScore]:
    lengths = np.random.default_rng(9).integers(20, 900, size=40)
    noise = np.random.default_rng(seed).normal(size=40) * 0.05
    return [
        TextScore(f"d{i}", "web", float(length * (3.0 + extra + wobble)), int(length), int(length) * 4, f"d{i}")
        for i, (length, wobble) in enumerate(zip(lengths, noise, strict=True))
    ]


def test_texts_are_scored_whole():
    documents = [Document(str(i), "é" * (i + 1), "web", "web/plain") for i in range(70)]
    found = score_texts(RollingStub(), documents, "m")
    assert [row.nll for row in found] == [2.0 * (i + 1) for i in range(70)]
    assert found[3] == TextScore("3", "web/plain", 8.0, 4, 8, digest("éééé".encode()))
    loss = token_loss({0: found})
    assert loss.loss.value == pytest.approx(2.0)
    assert loss.loss.high - loss.loss.low < 1e-9
    assert loss.perplexity == pytest.approx(math.exp(2))
    assert loss.bits_per_byte == pytest.approx(1 / math.log(2))
    assert (loss.tokens, loss.documents) == (sum(range(1, 71)), 70)


def test_the_loss_is_per_token_and_its_interval_is_the_ratio_estimators():
    rows = scores(1)
    found = token_loss({0: rows}).loss
    nll, tokens = np.array([row.nll for row in rows]), np.array([row.tokens for row in rows])
    ratio = nll.sum() / tokens.sum()
    error = math.sqrt(40 / 39 * ((nll - ratio * tokens) ** 2).sum()) / tokens.sum()  # Cochran 1977, eq. 2.46
    assert found.value == pytest.approx(ratio, rel=1e-12)
    assert (found.high - found.low) / 2 == pytest.approx(2.0226909 * error, rel=1e-6)


def test_the_tax_is_paired():
    base = {seed: scores(seed) for seed in (1, 2, 3)}
    arm = {seed: scores(seed, extra=0.01) for seed in (1, 2, 3)}
    found = loss_difference(arm, base)
    assert found.value == pytest.approx(0.01)
    assert found.high - found.low < 1e-9
    same = loss_difference(base, base)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_no_text_is_a_users_error():
    with pytest.raises(UserError, match="no held-out text"):
        token_loss({0: []})
