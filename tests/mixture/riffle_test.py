import bisect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, Replace, parse_schedule, parse_shares, where
from alignpre_jax.mixture.riffle import Riffle, in_slots

ROWS = {"web": 5000, "aligned": 300}
SLOTS = 3000


@st.composite
def riffles(draw, most=4):
    count = draw(st.integers(1, most))
    edges = sorted(draw(st.sets(st.integers(0, 20), min_size=2 * count, max_size=2 * count)))
    strengths = st.sampled_from(["1", "2", "0.3", "7", "0->1", "3->0", "1->5"])
    text = "; ".join(f"[{a}/20,{b}/20) {draw(strengths)}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    return Riffle(parse_schedule(text), draw(st.integers(100, 3000)), draw(st.integers(0, 2**32)))


@settings(max_examples=60, deadline=None)
@given(riffles(), st.data())
def test_doses_are_exact_nested_and_in_proportion(riffle, data):
    room = bisect.bisect_left(range(riffle.slots), True, key=lambda uses: riffle.overfull(uses + 1) is not None)
    small, large = sorted(data.draw(st.tuples(st.integers(0, room), st.integers(0, room))))
    every = np.arange(riffle.slots)
    (less, their_uses), (more, uses) = (riffle.touch(every, taken) for taken in (small, large))
    assert np.array_equal(np.sort(uses), np.arange(large))
    by_slot = dict(zip(more.tolist(), uses.tolist(), strict=True))
    assert [by_slot[slot] for slot in less.tolist()] == their_uses.tolist()
    assert np.array_equal(riffle.slots_of(uses), more)
    weights = [_weight(window, riffle.slots) for window in riffle.windows]
    for window, weight, taken in zip(
        riffle.windows, weights, riffle.taken(np.array([large]))[:, 0].tolist(), strict=True
    ):
        first, stop = in_slots(window, riffle.slots)
        assert taken == np.sum((more >= first) & (more < stop))
        assert abs(taken - large * weight / sum(weights)) < 1


@settings(max_examples=50, deadline=None)
@given(riffles(most=9), st.data())
def test_many_windows_stay_close(riffle, data):
    uses = data.draw(st.integers(0, riffle.slots))
    weights = [_weight(window, riffle.slots) for window in riffle.windows]
    for weight, taken in zip(weights, riffle.taken(np.array([uses]))[:, 0].tolist(), strict=True):
        assert abs(taken - uses * weight / sum(weights)) < 2  # four merges, half a row each


def test_a_ramp_rises_evenly():
    riffle = Riffle(parse_schedule("[0.5,1) 0->1"), 100_000, 1)
    at, _ = riffle.touch(np.arange(100_000), 10_000)
    counts, _ = np.histogram(at, bins=64, range=(50_000, 100_000))
    ideal = 10_000 * np.arange(1, 128, 2) / 64**2
    assert np.abs(counts - ideal).max() < 3
    assert at.min() >= 50_000


def test_one_even_window_is_the_window_itself():
    def plan(**given):
        return Plan(_base(), (Replace("aligned", "0.02", 5, **given),), ROWS)

    alike = plan(schedule="[0.25,0.5) 3"), plan(start="0.25", end="0.5")
    assert alike[0].digest() == alike[1].digest()
    assert np.array_equal(*(there.lookup(np.arange(SLOTS)).row for there in alike))
    assert plan(schedule="1").digest() == plan().digest()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 59), st.integers(0, 299))
def test_untouched_slots_stay_and_rows_are_found(permille, row):
    schedule = "[0,0.1) 2; [0.3,0.6) 1->4; [0.9,1) 1"
    plain = Plan(_base(), (), ROWS).lookup(np.arange(SLOTS))
    plan = Plan(_base(), (Replace("aligned", Fraction(permille, 1000), 5, schedule=schedule),), ROWS)
    there = plan.lookup(np.arange(SLOTS))
    same = there.overlay == -1
    assert (~same).sum() == permille * 3
    assert np.array_equal(there.row[same], plain.row[same])
    assert np.array_equal(where(plan, "aligned", row), np.flatnonzero((there.store == 1) & (there.row == row)))


def test_schedules_are_part_of_the_digest():
    schedules = [
        "",
        "[0,0.5) 1",
        "[0,0.5) 1; [0.5,1) 2",
        "[0,0.5) 1; [0.5,1) 3",
        "0->1",
        "1->0",
        "[0,0.5) 1; [0.7,1) 2",
    ]
    digests = [
        Plan(_base(), (Replace("aligned", "0.05", 5, schedule=schedule),), ROWS).digest() for schedule in schedules
    ]
    assert len(set(digests)) == len(schedules)


@pytest.mark.parametrize(
    ("schedule", "dose", "parts"),
    [
        ("[0,0.01) 19; [0.5,1) 1", "0.05", ["dose of 0.05 is 150 slots", "among the 30 slots", "overlays[0].schedule"]),
        ("[0.5,0.50001) 1; [0.6,1) 1", "0.05", ["holds no slot", "overlays[0].schedule"]),
    ],
)
def test_windows_that_are_too_small(schedule, dose, parts):
    with pytest.raises(UserError) as error:
        Plan(_base(), (Replace("aligned", dose, 5, schedule=schedule),), ROWS)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "part"),
    [
        ("[0,0.5) much", "'much'"),
        ("[0,0.5) 1; [0.4,1) 1", "before the one before it ends"),
        ("[0.5,0.4) 1", "ends before it starts"),
        ("0-0.5:1", "'0-0.5:1'"),
        ("[0,0.5] 1", "does not start with a window"),
        ("[0,0.5)", "a number is missing"),
        ("[0,0.5) -1", "negative"),
        ("[0,0.5) 1->", "a number is missing"),
        ("[0,0.5) 0", "zero everywhere"),
        ("[0,2) 1", "not in [0, 1]"),
    ],
)
def test_schedules_that_are_none(schedule, part):
    with pytest.raises(UserError) as error:
        Replace("aligned", "0.1", 0, schedule=schedule)
    assert part in str(error.value)
    assert error.value.where.startswith("schedule")


def test_a_window_and_a_schedule_contradict():
    with pytest.raises(UserError, match="start, end and schedule"):
        Replace("aligned", "0.1", 0, start="0.5", schedule="[0,0.5) 1")


def _base():
    return BasePlan(parse_shares("web:1"), ROWS, SLOTS, 3)


def _weight(window, slots):
    """The integral of the strength over a window: the area of a trapezium."""
    first, stop = in_slots(window, slots)
    return (stop - first) * (window.strength.first + window.strength.last) / 2
