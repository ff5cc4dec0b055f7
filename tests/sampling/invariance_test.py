"""The invariance mode: the same bits whatever else is asked, in whatever order, in whatever engine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.sampling import Choice, Engine, Request, Temperature, TopP
from tests.sampling.conftest import BUCKETS, CONFIG, Characters
from tests.sampling.score_test import REQUESTS

ASKED = [
    Request("tell me", Temperature(2.0), 9, seed=1),
    Request("", TopP(0.9, 1.5), 12, seed=2),
    Request("tell me", Temperature(2.0), 7, seed=3, stop=("a",)),
    Request("a somewhat longer prompt", Temperature(1.0), 5, seed=4),
    Request("x", Temperature(4.0), 20, seed=5, within=Choice(("report it", "hide it"))),
]


@pytest.fixture(scope="module")
def invariant(params):
    return Engine(params, CONFIG, Characters(), buckets=BUCKETS, invariant=True)


@pytest.fixture(scope="module")
def alone(invariant):
    """What each request gets when nothing else is asked."""
    return [invariant.score([request])[0] for request in REQUESTS], [invariant.complete([r])[0] for r in ASKED]


subsets = st.lists(st.integers(0, 4), min_size=1, max_size=9)


@settings(max_examples=8, deadline=None)
@given(subsets)
def test_scores_are_bitwise_the_same_in_any_company(invariant, alone, numbers):
    found = invariant.score([REQUESTS[number] for number in numbers])
    assert found == [alone[0][number] for number in numbers]  # == on floats: bit for bit


@settings(max_examples=5, deadline=None)
@given(subsets)
def test_texts_are_the_same_in_any_company(invariant, alone, numbers):
    assert invariant.complete([ASKED[number] for number in numbers]) == [alone[1][number] for number in numbers]


def test_another_engine_gives_the_same_bits(params, invariant, alone):
    again = Engine(params, CONFIG, Characters(), buckets=BUCKETS, invariant=True)
    assert again.score(REQUESTS[::-1]) == alone[0][::-1]
    assert again.fingerprint == invariant.fingerprint
    assert len({key[1:] for key in invariant.programs.used if key[0] in ("hidden_states", "decode")}) <= 4


def test_it_is_near_what_shared_rows_give(engine, alone):
    for wanted, found in zip(alone[0], engine.score(REQUESTS), strict=True):
        np.testing.assert_allclose([s.logprob for s in wanted], [s.logprob for s in found], atol=1e-5)


def test_the_fingerprint_names_model_and_computation(params, engine):
    names = {engine.fingerprint}
    names.add(Engine(params, CONFIG, Characters(), buckets=BUCKETS, invariant=True).fingerprint)
    names.add(Engine(params, CONFIG, Characters(), buckets=BUCKETS, int8=True).fingerprint)
    assert len(names) == 3
