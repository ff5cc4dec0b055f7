"""Choosing tokens, against the definitions written out for sorted probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.sampling import Greedy, MinP, Strategy, Temperature, TopK, TopP, strategies
from alignpre_jax.sampling.strategies import Settings, pack

VOCAB, ROWS = 300, 4  # more than a block of tokens
choose = jax.jit(strategies.choose)
cut = jax.jit(strategies._cut)


def kept_by_definition(chances, strategy):
    """Which tokens stay: top-k, then top-p of what stays, then min-p."""
    order = np.argsort(-chances, kind="stable")
    k = strategy.top_k or len(chances)
    first = order[:k]
    mass = np.cumsum(chances[first])
    kept = first[: np.searchsorted(mass, np.float32(strategy.top_p) * mass[-1]) + 1] if strategy.top_p < 1 else first
    return {int(i) for i in kept if chances[i] >= strategy.min_p * chances.max()} | {int(order[0])}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(
        st.builds(
            Strategy,
            top_k=st.integers(0, 2 * VOCAB),
            top_p=st.floats(0, 0.999),
            min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
        ),
        min_size=ROWS,
        max_size=ROWS,
    ),
)
def test_what_is_cut_is_what_the_definitions_cut(seed, chosen):
    logits = 4 * np.random.default_rng(seed).standard_normal((ROWS, VOCAB))
    chances = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1))
    kept = np.asarray(cut(chances, Settings.of(chosen)))
    for row, strategy in enumerate(chosen):
        found = set(np.flatnonzero(kept[row]).tolist())
        wanted = kept_by_definition(chances[row], strategy)
        # The sum of a set may differ from top_p's edge by rounding: then by one token.
        assert len(found ^ wanted) <= (strategy.top_p < 1)
        np.testing.assert_array_equal(kept[row][sorted(found)], chances[row][sorted(found)])


def test_samples_have_the_probabilities_that_were_asked_for():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05])).repeat(100)  # 400 tokens, in four groups
    keys = jax.random.split(jax.random.key(0), 4000)
    many = jnp.broadcast_to(logits, (4000, 400))
    drawn = np.asarray(choose(many, Settings.of([Temperature(0.5)] * 4000), keys)) // 100
    wanted = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.03)


def test_each_row_has_its_own_strategy():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05] + [0.0] * 4])).repeat(600, axis=0)
    each = [Greedy(), TopP(0.7), TopP(0.0), TopK(3), MinP(0.2), Temperature(9.0)]
    keys = jax.random.split(jax.random.key(1), 600)
    drawn = np.asarray(choose(logits, Settings.of(each * 100), keys)).reshape(100, 6)
    found = [set(drawn[:, n].tolist()) for n in range(6)]
    assert found == [{0}, {0, 1}, {0}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}]


def test_a_token_without_a_chance_is_never_drawn():
    logits = jnp.full((200, VOCAB), -jnp.inf).at[:, 258].set(1.0).at[:, 7].set(-60.0)
    drawn = choose(logits, Settings.of([Temperature(1.0)] * 200), jax.random.split(jax.random.key(2), 200))
    assert set(np.asarray(drawn).tolist()) == {258}


def test_repetition_penalty_is_that_of_the_paper():
    logits = jnp.array([[2.0, -2.0, 1.0, 0.0]] * 2)
    seen = np.stack([pack([0, 1], 32), pack([], 32)])
    strategy = [Greedy(repetition_penalty=4.0), Greedy(repetition_penalty=4.0)]
    found = jax.jit(strategies.penalised)(logits, seen, Settings.of(strategy))
    np.testing.assert_array_equal(found, [[0.5, -8.0, 1.0, 0.0], [2.0, -2.0, 1.0, 0.0]])


def test_bits_of_tokens():
    bits = pack([0, 31, 32, 69], 70)
    assert bits.dtype == np.uint32
    assert len(bits) == 3
    np.testing.assert_array_equal(np.flatnonzero(strategies.unpack(bits[None], 70)[0]), [0, 31, 32, 69])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperature": -1.0}, "no temperature"),
        ({"temperature": float("nan")}, "no temperature"),
        ({"top_p": 1.5}, "not a probability"),
        ({"min_p": -0.1}, "not a probability"),
        ({"top_k": -1}, "number of tokens"),
        ({"repetition_penalty": 0.0}, "above 0"),
    ],
)
def test_values_out_of_range_are_refused(values, says):
    with pytest.raises(UserError, match=says):
        Strategy(**values)
