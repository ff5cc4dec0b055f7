import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from alignpre_jax.evals import Observation, estimate
from alignpre_jax.evals.retention import share_left
from alignpre_jax.foundation import UserError


def observe(values) -> list[Observation]:
    """Observations of an array [items, seeds]."""
    return [
        Observation(f"item{i}", f"item{i}", r, float(values[i, r]))
        for i, r in itertools.product(*map(range, values.shape))
    ]


def nodes(rng, items, seeds, effect, share, item_sd=0.4, seed_sd=0.05, rest_sd=0.3):
    """Differences at two nodes: what an item or a seed gives to the first it gives in part to the later one."""

    def noise():
        return (
            rng.normal(size=(items, 1)) * item_sd
            + rng.normal(size=(1, seeds)) * seed_sd
            + rng.normal(size=(items, seeds)) * rest_sd
        )

    first = noise()
    return effect + first, share * effect + 0.6 * first + 0.8 * noise()


def test_the_interval_is_where_the_mean_of_e_less_r_d_does_not_differ_from_0():
    """Fieller by its definition: the ends are found by search with `estimate` alone."""
    for seeds in (1, 3):
        first, later = nodes(np.random.default_rng(seeds), 30, seeds, -0.5, 0.6)
        found = share_left(observe(first), observe(later))
        assert found.share == pytest.approx(later.mean() / first.mean())

        def ahead(share, first=first, later=later):
            at = estimate(observe(later - share * first))
            return abs(at.value) - (at.high - at.low) / 2

        low = optimize.brentq(ahead, found.share - 5, found.share)
        high = optimize.brentq(ahead, found.share, found.share + 5)
        assert found.interval == pytest.approx([low, high], abs=1e-9)


def test_one_seed_is_the_textbook_formula():
    """Fieller's ends from means, variances and covariance of item means (Franz 2007, eq. 7)."""
    first, later = (values[:, 0] for values in nodes(np.random.default_rng(5), 40, 1, 0.4, 0.5))
    cov = np.cov(later, first) / 40
    a, b, t2 = later.mean(), first.mean(), stats.t.ppf(0.975, 39) ** 2
    v11, v22, v12 = cov[0, 0], cov[1, 1], cov[0, 1]
    middle = a * b - t2 * v12
    spread = math.sqrt(middle**2 - (b**2 - t2 * v22) * (a**2 - t2 * v11))
    expected = [(middle - spread) / (b**2 - t2 * v22), (middle + spread) / (b**2 - t2 * v22)]
    assert share_left(observe(first[:, None]), observe(later[:, None])).interval == pytest.approx(expected)


def test_a_cluster_bootstrap_finds_the_same_interval():
    rng = np.random.default_rng(7)
    first, later = nodes(rng, 200, 1, 0.4, 0.5)
    found = share_left(observe(first), observe(later))
    drawn = rng.integers(0, 200, size=(4000, 200))
    ratios = later[drawn, 0].mean(axis=1) / first[drawn, 0].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.interval == pytest.approx([low, high], abs=0.15 * (high - low))


def test_a_pigeonhole_bootstrap_over_items_and_seeds_finds_the_same_interval():
    """Many seeds, so that t quantiles matter little: items and seeds are drawn apart from each other (Owen 2007)."""
    rng = np.random.default_rng(8)
    first, later = nodes(rng, 120, 25, 0.4, 0.5, rest_sd=0.1, seed_sd=0.1)
    found = share_left(observe(first), observe(later))
    ratios = []
    for _ in range(2000):
        cells = np.ix_(rng.integers(0, 120, 120), rng.integers(0, 25, 25))
        ratios.append(later[cells].mean() / first[cells].mean())
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.interval == pytest.approx([low, high], abs=0.2 * (high - low))


@pytest.mark.parametrize(("effect", "share"), [(0.45, 1.0), (0.45, 0.3), (0.9, 0.0)])
def test_coverage(effect, share):
    """400 studies of 40 situations and 3 seeds: within three standard errors of a coverage of 95% or above."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(400):
        first, later = nodes(rng, 40, 3, effect, share)
        found = share_left(observe(first), observe(later))
        inside += found.low is None or found.low <= share <= found.high
    assert inside / 400 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 4), st.floats(-1, 1), st.sampled_from([-3.0, 0.5]))
def test_properties(seed, items, seeds, effect, scale):
    rng = np.random.default_rng(seed)
    first, later = (observe(values) for values in nodes(rng, items, seeds, effect, 0.5))
    found = share_left(first, later)
    at = estimate(first)
    assert (found.share is None) == (not at.excludes(0.0)), "a share exactly where the first effect is one"
    if found.share is None:
        assert found.interval is None
        assert "contains 0" in found.reason
        return
    assert found.reason == ""
    assert found.low <= found.share <= found.high
    # all of it is left of what has not changed
    same = share_left(first, first)
    assert [same.share, *same.interval] == pytest.approx([1, 1, 1], abs=1e-6)
    # the unit does not matter, nor the order of the rows
    scaled = [[dataclasses.replace(row, value=scale * row.value) for row in reversed(rows)] for rows in (first, later)]
    assert share_left(*scaled).interval == pytest.approx(found.interval, rel=1e-6, abs=1e-9)
    # twice the later effect is twice the share
    double = share_left(first, [dataclasses.replace(row, value=2 * row.value) for row in later])
    assert double.interval == pytest.approx([2 * end for end in found.interval], rel=1e-6, abs=1e-9)


def test_only_what_was_observed_at_both_nodes_counts():
    first, later = nodes(np.random.default_rng(3), 20, 3, 0.8, 0.5)
    whole, rest = observe(first), observe(later)[9:]
    found = share_left(whole, rest)
    assert found.n == 51
    assert found == share_left([row for row in whole if row.key not in ("item0", "item1", "item2")], rest)
    with pytest.raises(UserError, match="nothing was observed at both nodes"):
        share_left(whole[:9], rest)


def test_an_effect_of_exactly_nothing_has_no_share():
    zero = observe(np.zeros((10, 2)))
    found = share_left(zero, observe(np.ones((10, 2))))
    assert (found.share, found.interval) == (None, None)
