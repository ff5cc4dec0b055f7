import itertools

import numpy as np
import pytest

from alignpre_jax.evals import Observation, estimate
from alignpre_jax.evals.power import (
    Components,
    binary_components,
    components,
    items_needed,
    minimum_effect,
    power,
    power_table,
)
from alignpre_jax.foundation import UserError


def draw(rng, parts, items, seeds, effect=0.0):
    values = (
        effect
        + rng.normal(size=(items, 1)) * parts.item**0.5
        + rng.normal(size=(1, seeds)) * parts.seed**0.5
        + rng.normal(size=(items, seeds)) * parts.rest**0.5
    )
    return [
        Observation(f"i{g}", f"i{g}", r, float(values[g, r])) for g, r in itertools.product(range(items), range(seeds))
    ]


@pytest.mark.parametrize(
    ("parts", "items", "seeds"),
    [
        (Components(0.2, 0.0, 0.2), 60, 1),
        (Components(0.2, 0.002, 0.2), 80, 3),
        (Components(0.1, 0.02, 0.1), 80, 5),
        (Components(0.05, 0.05, 0.1), 40, 3),
    ],
)
def test_the_power_said_is_the_power_that_the_reports_test_has(parts, items, seeds):
    """1,000 studies at the minimum detectable effect: 80% of them find it (standard error 1.3 points)."""
    effect = minimum_effect(parts, items, seeds)
    hits = 0
    for trial in range(1000):
        found = estimate(draw(np.random.default_rng([trial, 1]), parts, items, seeds, effect))
        hits += found.excludes(0.0)
    assert hits / 1000 == pytest.approx(0.8, abs=0.04)


def test_without_an_effect_one_study_in_twenty_finds_one():
    assert power(Components(0.2, 0.0, 0.2), 200, 1, 0.0) == pytest.approx(0.05, abs=0.006)


def test_components_of_a_pilot_are_found():
    parts = Components(0.3, 0.1, 0.2)
    found = [components(draw(np.random.default_rng([t, 2]), parts, 60, 8)) for t in range(60)]
    for name in ("item", "seed", "rest"):
        assert np.mean([getattr(one, name) for one in found]) == pytest.approx(getattr(parts, name), rel=0.12)


def test_one_seed_knows_nothing_of_seeds():
    found = components(draw(np.random.default_rng(3), Components(0.3, 5.0, 0.2), 400, 1))
    assert found.seed == found.rest == 0
    assert found.item == pytest.approx(0.5, rel=0.2)


def test_more_items_do_not_help_where_seeds_decide():
    parts = binary_components(rate=0.45, agreement=0.3, seed_sd=0.05)
    table = power_table(parts, items=(50, 5000), seeds=(1, 3, 10))
    assert table[0]["seeds3"] > table[1]["seeds3"] > table[1]["seeds10"] > 0.02
    assert items_needed(parts, seeds=3, effect=0.03) is None
    needed = items_needed(parts, seeds=10, effect=0.1)
    assert power(parts, needed, 10, 0.1) >= 0.8 > power(parts, needed // 2, 10, 0.1)


def test_mistakes_are_the_users():
    with pytest.raises(UserError, match="not a share"):
        binary_components(1.5, 0, 0)
    with pytest.raises(UserError, match="at least two items"):
        components([Observation("a", "a", 0, 1.0)])
    with pytest.raises(UserError, match="give at least 2 and 1"):
        power(Components(1, 0, 0), 1, 1, 0.1)
