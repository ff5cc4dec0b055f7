from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, parse_shares
from alignpre_jax.mixture.permutation import derive_key, mix, permute


@st.composite
def base_plans(draw, max_slots=3000):
    weights = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    shares = {f"s{i}": Fraction(weight, sum(weights)) for i, weight in enumerate(weights)}
    slots = draw(st.integers(200, max_slots))
    rows = {name: draw(st.integers(8, 2000)) for name in shares}
    return BasePlan(shares, rows, slots, draw(st.integers(0, 2**32)), max_epochs=1e9)


@settings(max_examples=60, deadline=None)
@given(base_plans())
def test_exact_at_every_block_boundary(base):
    sources, uses = base.uses(np.arange(base.slots))
    for boundary in base.boundaries(np.arange(base.blocks + 1)).tolist():
        realised = np.bincount(sources[:boundary], minlength=len(base.sources)).tolist()
        for name, count in zip(base.sources, realised, strict=True):
            assert abs(count - base.shares[name] * boundary) < 1
    for source, count in enumerate(base.counts.values()):
        assert np.array_equal(np.sort(uses[sources == source]), np.arange(count))


@settings(max_examples=40, deadline=None)
@given(base_plans())
def test_closed_form_is_the_sequential_construction(base):
    sources, uses = base.uses(np.arange(base.slots))
    assert list(zip(sources.tolist(), uses.tolist(), strict=True)) == _construct(base)


@settings(max_examples=40, deadline=None)
@given(base_plans(), st.data())
def test_inverse(base, data):
    source = data.draw(st.integers(0, len(base.sources) - 1))
    uses = np.arange(base.counts[base.sources[source]])
    slots = base.slots_of(source, uses)
    found, again = base.uses(slots)
    assert np.all(found == source)
    assert np.array_equal(again, uses)


def test_tiny_weights_neither_vanish_nor_are_rounded():
    rows = {"web": 10**7, "tiny": 1000, "tinier": 1000}
    base = BasePlan(parse_shares("web:0.99989,tiny:1e-4,tinier:1e-5"), rows, 1_000_000, seed=0)
    assert base.counts == {"web": 999_890, "tiny": 100, "tinier": 10}
    assert base.blocks == 5
    sources, _ = base.uses(np.arange(1_000_000))
    per_block = np.stack([np.bincount(part, minlength=3) for part in np.split(sources, 5)])
    assert per_block[:, base.sources.index("tinier")].tolist() == [2] * 5
    assert per_block[:, base.sources.index("tiny")].tolist() == [20] * 5


def test_sources_are_spread_inside_a_block():
    base = BasePlan(parse_shares("a:0.5,b:0.499,c:0.001"), {"a": 10**6, "b": 10**6, "c": 10**6}, 200_000, seed=3)
    sources, _ = base.uses(np.arange(2000))
    halves = np.bincount(sources[:1000], minlength=3)
    assert 430 < halves[0] < 570


def test_shares_of_any_precision_are_exact():
    share = Fraction(123_456_789_012_345, 10**15)
    base = BasePlan({"a": share, "b": 1 - share}, {"a": 10**9, "b": 10**9}, 10**6, seed=0)
    assert base.counts == {"a": 123_457, "b": 876_543}
    sources, _ = base.uses(np.arange(1000))
    assert abs(np.sum(sources[: base.boundaries(1)] == 0) - share * int(base.boundaries(1))) < 1


def test_the_far_end_of_a_huge_stage():
    rows = {"web": 1 << 39, "aligned": 1 << 30}
    base = BasePlan(parse_shares("web:0.999,aligned:0.001"), rows, (1 << 39) + 12345, seed=0)
    slots = np.arange(base.slots - 5000, base.slots)
    sources, uses = base.uses(slots)
    for source in (0, 1):
        assert np.array_equal(np.sort(base.slots_of(source, uses[sources == source])), slots[sources == source])


def test_order_of_writing_does_not_matter_and_seeds_do():
    rows = {"a": 500, "b": 500}
    slots = np.arange(300)
    one = BasePlan(parse_shares("a:0.7,b:0.3"), rows, 300, seed=1).uses(slots)
    same = BasePlan(parse_shares("b:0.3,a:0.7"), rows, 300, seed=1).uses(slots)
    other = BasePlan(parse_shares("a:0.7,b:0.3"), rows, 300, seed=2).uses(slots)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("shares", "rows", "slots", "parts"),
    [
        ("web:0.999,aligned:0.001", {"web": 1000, "aligned": 9}, 100, ["'aligned'", "0.001", "100 slots"]),
        ("web:0.9,aligned:0.1", {"web": 1000, "aligned": 0}, 100, ["'aligned'", "no rows"]),
        ("web:0.9,aligned:0.1", {"web": 1000, "aligned": 9}, 100, ["'aligned'", "9 rows", "10 are needed", "epochs"]),
        ("web:0.9,alinged:0.1", {"web": 1000, "aligned": 9}, 100, ["'alinged'", "did you mean 'aligned'"]),
        ("web:0.9", {"web": 1000}, 100, ["0.9", "web"]),
        ("web:1", {"web": 1000}, 0, ["0 slots"]),
    ],
)
def test_mistakes_are_named(shares, rows, slots, parts):
    pairs = dict(part.split(":") for part in shares.split(","))
    with pytest.raises(UserError) as error:
        BasePlan(pairs, rows, slots, seed=0)
    for part in parts:
        assert part in str(error.value)


def test_a_share_of_zero_is_no_share():
    rows = {"web": 300, "empty": 0}
    base = BasePlan(parse_shares("web:1,empty:0"), rows, 300, seed=0)
    assert base.sources == ("web",)
    alone = Plan(BasePlan(parse_shares("web:1"), rows, 300, seed=0), (), rows)
    assert Plan(base, (), rows).digest() == alone.digest()


def _construct(base: BasePlan) -> list[tuple[int, int]]:
    """Block after block, carrying what was dealt so far: the plan as one would do it by hand."""
    done, order = [0] * len(base.sources), []
    for block in range(base.blocks):
        first, stop = (number * base.slots // base.blocks for number in (block, block + 1))
        ideal = [base.shares[name] * stop for name in base.sources]
        after = [int(value) for value in ideal]
        by_remainder = sorted(range(len(after)), key=lambda i: (after[i] - ideal[i], i))
        for i in by_remainder[: stop - sum(after)]:
            after[i] += 1
        content = [(s, use) for s, (a, b) in enumerate(zip(done, after, strict=True)) for use in range(a, b)]
        assert len(content) == stop - first
        key = mix(derive_key(base.seed, "block"), block)
        order += [content[place] for place in permute(np.arange(stop - first), stop - first, key).tolist()]
        done = after
    return order
