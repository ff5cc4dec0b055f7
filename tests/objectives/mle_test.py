"""Maximum likelihood: chunked against plain cross-entropy, and what is never in memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.foundation import UserError, build
from alignpre_jax.model import DecoderConfig, bind, init_params
from alignpre_jax.objectives import Mle, Models, total
from alignpre_jax.objectives.cross_entropy import chunk_length

CONFIG = DecoderConfig(
    vocab_size=50,
    layers=1,
    width=16,
    heads=2,
    kv_heads=2,
    head_dim=8,
    mlp_width=16,
    max_length=64,
    layout="unroll",
    dtype="float32",
)


@dataclasses.dataclass(frozen=True)
class Rows:
    tokens: jax.Array
    segments: jax.Array


def rows(B=3, L=11, padded=0):
    tokens = jax.random.randint(jax.random.key(1), (B, L), 0, CONFIG.vocab_size)
    segments = jnp.where(jnp.arange(L) < 4, 1, 2) * jnp.ones_like(tokens)
    return Rows(tokens, segments.at[0, L - padded :].set(0))


def loss_of(objective, decoder, batch):
    terms, aux = objective.terms(Models(decoder), batch)
    return total(terms, objective.weights(batch)), aux["loss_sum_B"]


def plain(config, decoder, batch):
    logits = decoder.unembed(decoder(batch.tokens, batch.segments))[:, :-1]
    counted = batch.segments[:, 1:] > 0
    log_z = jax.nn.logsumexp(logits, axis=-1)
    losses = log_z - jnp.take_along_axis(logits, batch.tokens[:, 1:, None], axis=-1)[..., 0]
    mean = lambda x: jnp.sum(x * counted) / jnp.sum(counted)  # noqa: E731
    return mean(losses) + config.z_loss * mean(log_z**2), jnp.sum(losses * counted, axis=1)


def test_equals_plain_cross_entropy():
    config = Mle(z_loss=0.1, chunk_bytes=4 * 3 * 50 * 4)  # 4 positions of 3 rows: 11 = 4 + 4 + 3
    batch, params = rows(padded=3), init_params(CONFIG, 0)

    def value(objective):
        return jax.jit(jax.value_and_grad(lambda p: objective(config, bind(CONFIG, p), batch), has_aux=True))(params)

    (loss, loss_sum_B), gradients = value(loss_of)
    (wanted, by_row), wanted_gradients = value(plain)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    np.testing.assert_allclose(loss_sum_B, by_row, rtol=1e-5)
    assert {name: float(weight) for name, weight in config.weights(batch).items()} == {"nll": 27.0, "z": 27.0}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, wanted_gradients)


def test_no_logits_of_the_whole_batch_exist():
    vocab, batch = 4096, rows(B=4, L=64)
    config = dataclasses.replace(CONFIG, vocab_size=vocab)

    def loss(params):
        return loss_of(Mle(chunk_bytes=1 << 18), bind(config, params), batch)[0]

    largest, stack = 0, [jax.make_jaxpr(jax.grad(loss))(init_params(config, 0)).jaxpr]
    while stack:
        for equation in stack.pop().eqns:
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    stack.append(inner)
            largest = max([largest, *(out.aval.size for out in equation.outvars if vocab in out.aval.shape)])
    assert largest == vocab * 4 * 4 < batch.tokens.size * vocab  # 4 rows x 4 positions: the byte budget


def test_chunks_fill_the_budget_and_the_row():
    assert chunk_length(32, 128, 2048, 4 << 20) == 16
    assert chunk_length(32, 128, 2048, 1) == 1
    assert chunk_length(1, 100, 10, 1 << 30) == 100
    assert chunk_length(1, 100, 10, 40 * 60) == 50  # two even chunks rather than 60 and 40


def test_mistakes():
    with pytest.raises(UserError, match="'mlee' is not a valid choice"):
        build(Mle, {"name": "mlee"}, "objective")
    with pytest.raises(UserError, match="negative"):
        Mle(z_loss=-1.0)
