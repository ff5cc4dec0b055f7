from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, parse_shares
from alignpre_jax.mixture.quotas import Quotas


@st.composite
def schedules(draw, most=5):
    """Windows of constant shares and ramps over up to five stores, some of them idle in some windows."""
    stores = [f"s{number}" for number in range(draw(st.integers(2, 5)))]
    edges = sorted(draw(st.sets(st.integers(1, 9), max_size=most - 1)))

    def weights():
        drawn = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3, 7]), min_size=len(stores), max_size=len(stores)))
        assume(sum(drawn))
        return [Fraction(weight, sum(drawn)) for weight in drawn]

    parts = []
    for start, end in pairwise([0, *edges, 10]):
        first = weights()
        last = weights() if draw(st.booleans()) else first
        values = ",".join(f"{name}:{a}->{b}" for name, a, b in zip(stores, first, last, strict=True))
        parts.append(f"[{start}/10,{end}/10) {values}")
    return parse_shares("; ".join(parts))


@st.composite
def scheduled_plans(draw):
    shares = draw(schedules())
    rows = {name: draw(st.integers(8, 3000)) for name in shares}
    try:
        return BasePlan(shares, rows, draw(st.integers(300, 4000)), draw(st.integers(0, 2**32)), max_epochs=1e9)
    except UserError:  # a share that gets no row in its window
        assume(False)


@settings(max_examples=30, deadline=None)
@given(scheduled_plans())
def test_exact_at_every_block_boundary(base):
    sources, uses = base.uses(np.arange(base.slots))
    for boundary in base.boundaries(np.arange(base.blocks + 1)).tolist():
        realised = np.bincount(sources[:boundary], minlength=len(base.sources)).tolist()
        assert all(abs(count - ideal) < 1 for count, ideal in zip(realised, _integral(base, boundary), strict=True))
    for source, count in enumerate(base.counts.values()):
        assert np.array_equal(np.sort(uses[sources == source]), np.arange(count))
        slots = base.slots_of(source, np.arange(count))
        assert np.array_equal(np.flatnonzero(sources == source), np.sort(slots))
        assert np.array_equal(base.uses(slots)[1], np.arange(count))


@settings(max_examples=40, deadline=None)
@given(scheduled_plans())
def test_a_source_is_in_every_block_of_the_windows_that_have_it_and_in_no_other(base):
    sources, _ = base.uses(np.arange(base.slots))
    for segment in base._quotas.segments:
        there = set(sources[segment.start : segment.stop].tolist())
        assert there == set(range(len(base.sources))) - segment.idle
        cuts = base.boundaries(np.arange(base.blocks + 1))
        for start, stop in pairwise(cuts[(cuts >= segment.start) & (cuts <= segment.stop)].tolist()):
            assert set(sources[start:stop].tolist()) == there or segment.blocks == 1


@settings(max_examples=80, deadline=None)
@given(schedules(most=9), st.integers(100, 10**6))
def test_rounding_never_takes_a_row_back_and_leaves_idle_sources_alone(shares, slots):
    quotas = Quotas(shares, tuple(sorted(name for name, share in shares.items() if share)), slots)
    try:
        quotas.require_rows()
    except UserError:
        return
    for segment in quotas.segments:
        cuts = np.unique(np.linspace(segment.start, segment.stop, min(segment.blocks, 50) + 1).astype(np.int64))
        counts = quotas.realised(cuts)
        assert np.array_equal(counts.sum(axis=0), cuts)
        assert np.all(np.diff(counts, axis=1) >= 0)
        for source in segment.idle:
            assert len(set(counts[source].tolist())) == 1
        for slot, column in zip(cuts.tolist(), counts.T.tolist(), strict=True):
            assert all(abs(count - ideal) < 1 for count, ideal in zip(column, quotas.at(slot), strict=True))


def test_sources_that_rest_together_are_rounded_together():
    """Each of three resting sources lacks 2/3 of a row: the only one that goes on cannot make up for them all."""
    text = "[0,0.5) a:2/9,b:2/9,c:2/9,d:1/3; [0.5,0.75) d:1; [0.75,1) a:0.5,b:0.5"
    base = BasePlan(parse_shares(text), dict.fromkeys("abcd", 10**6), 384 * 2 + 2, 0, 1e9)
    for boundary in base.boundaries(np.arange(base.blocks + 1)).tolist():
        counts = base.realised(np.array([boundary]))[:, 0].tolist()
        assert all(abs(n - ideal) < 1 for n, ideal in zip(counts, base.ideals(boundary).values(), strict=True))


def test_a_ramp_integrates_to_what_was_asked():
    base = BasePlan(parse_shares("[0,0.5) web:1; [0.5,1) web:1->0.8,ai:0->0.2"), {"web": 10**7, "ai": 10**6}, 10**6, 0)
    assert base.counts == {"ai": 50_000, "web": 950_000}
    assert base.asked == {"ai": 50_000, "web": 950_000}
    sources, _ = base.uses(np.arange(base.slots))
    per_tenth = (sources == 0).reshape(10, -1).sum(axis=1)
    assert np.abs(per_tenth[5:] - [2000, 6000, 10_000, 14_000, 18_000]).max() < 150
    assert per_tenth[:5].sum() == 0


def test_the_middle_of_a_huge_ramp():
    rows = {"web": 1 << 39, "aligned": 1 << 38}
    shares = parse_shares("[0,1/3) web:0.999,aligned:0.001; [1/3,1) web:0.999->0.5,aligned:0.001->0.5")
    base = BasePlan(shares, rows, (1 << 39) + 12345, seed=0)
    slots = np.arange(base.slots // 2, base.slots // 2 + 2000)
    sources, uses = base.uses(slots)
    for source in (0, 1):
        assert np.array_equal(np.sort(base.slots_of(source, uses[sources == source])), slots[sources == source])


def test_windows_are_part_of_the_digest():
    rows = {"a": 10**4, "b": 10**4}

    def digest(text):
        return Plan(BasePlan(parse_shares(text), rows, 1000, 0), (), rows).digest()

    texts = ["a:0.5,b:0.5", "[0,0.5) a:1; [0.5,1) b:1", "[0,1) a:0->1,b:1->0", "[0,0.5) b:1; [0.5,1) a:1"]
    assert len({digest(text) for text in texts}) == len(texts)
    assert digest("[0,0.3) a:0.5,b:0.5; [0.3,1) b:0.5,a:0.5") == digest("a:0.5,b:0.5")


@pytest.mark.parametrize(
    ("shares", "parts"),
    [
        ("[0,0.5) a:1; [0.5,1) a:0.999,b:0.001", ["'b'", "0.001", "100 slots", "[0.5,1)"]),
        ("[0,0.995) a:1; [0.995,1) a:0.9,b:0.1", ["'b'", "0.1", "1 slots", "[0.995,1)"]),
        ("[0,0.999) a:1; [0.9991,0.9992) a:0.5,b:0.5; [0.9992,1) b:1", ["no shares are given for [0.999,0.9991)"]),
        ("[0,0.999) a:1; [0.999,0.9992) a:0.5,b:0.5; [0.9992,1) b:1", ["[0.999,0.9992) of 200 slots holds no slot"]),
    ],
)
def test_windows_that_are_too_short(shares, parts):
    with pytest.raises(UserError) as error:
        BasePlan(parse_shares(shares), {"a": 1000, "b": 1000}, 200, 0)
    for part in parts:
        assert part in str(error.value)


def _integral(base, boundary):
    """The ideals before a slot, by adding up the shares slot by slot."""
    totals = dict.fromkeys(base.sources, Fraction(0))
    edges = [int(edge * base.slots) for edge in base.schedule.edges]
    for (start, stop), window in zip(pairwise(edges), base.schedule.windows, strict=True):
        past = max(0, min(boundary, stop) - start)
        for name, ramp in window.items():
            step = (ramp.last - ramp.first) / (stop - start)
            # the share in the middle of slot n is first + step * (n + 1/2): their sum is that of an arithmetic series
            totals[name] += past * ramp.first + step * Fraction(past * past, 2)
    return list(totals.values())
