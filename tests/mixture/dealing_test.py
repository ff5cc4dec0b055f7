import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, ledger, parse_shares, render, show, where
from alignpre_jax.mixture.dealing import make_deal
from alignpre_jax.mixture.shares import parse_schedule

ROWS = {"web": 4000, "k1": 90, "k2": 70, "k3": 200, "k4": 31}
GROWING = "[0,1/4) k1:1; [1/4,1/2) k1:1/2,k2:1/2; [1/2,3/4) k1:1/3,k2:1/3,k3:1/3; [3/4,1) k1:1/4,k2:1/4,k3:1/4,k4:1/4"
MIXTURES = [
    "k1",
    "k1:1/2,k2:1/2",
    "k1:0.31,k2:0.23,k3:0.46",
    "[0,1/3) k1:1; [1/3,1) k3:1",
    "[0,0.3) k1:1/3,k2:2/3; [0.3,0.35) k3:1; [0.35,1) k1:0.9,k4:0.1",
    "[0,0.5) k1:1; [0.5,1) k1:1->0.2,k2:0->0.8",
    GROWING,
]
SCHEDULES = ["", "[0,0.1) 2; [0.3,0.6) 1->4; [0.9,1) 1", "[0.2,0.9) 0->1", "[0,1/2) 1; [1/2,1) 2"]


def make_plan(*overlays, slots=1200, rows=ROWS):
    return Plan(BasePlan(parse_shares("web:0.95,k3:0.05"), rows, slots, 3, 1e12), overlays, rows)


def lay(mixture, dose, schedule="", seed=5, **stage):
    """A plan with the dose; a mixture of which a store would get no slot is not tried."""
    return allowed(lambda: make_plan(Replace(mixture, dose, seed, schedule=schedule), **stage))


def allowed(make):
    try:
        return make()
    except UserError as error:
        assume("gets none of the dose's" not in error.what)
        raise


def everything(plan):
    return plan.lookup(np.arange(plan.slots))


def brought(plan):
    """(slot, store, row) of all that the overlay brings in."""
    there = everything(plan)
    at = np.flatnonzero(there.overlay == 0)
    return set(zip(at.tolist(), there.store[at].tolist(), there.row[at].tolist(), strict=True))


doses = st.integers(60, 300).map(lambda slots: Fraction(slots, 1200))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MIXTURES), st.sampled_from(SCHEDULES), doses, doses, st.integers(0, 2**32))
def test_doses_are_nested_and_touch_nothing_else(mixture, schedule, a, b, seed):
    less, more = (lay(mixture, dose, schedule, seed) for dose in sorted((a, b)))
    small, large, untouched = brought(less), brought(more), everything(make_plan())
    assert (len(small), len(large)) == tuple(dose * 1200 for dose in sorted((a, b)))
    assert small <= large
    for plan in (less, more):
        there = everything(plan)
        same = there.overlay == -1
        for column, original in zip(there, untouched, strict=True):
            assert np.array_equal(column[same], original[same])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MIXTURES), st.sampled_from(SCHEDULES), doses, st.data())
def test_a_store_draws_its_first_rows_and_its_slots_are_found(mixture, schedule, dose, data):
    plan = lay(mixture, dose, schedule)
    (overlay,), there, every = plan.overlays, everything(plan), np.arange(1200)
    at, which, uses = overlay.touch(plan.base, every, every, every)
    for number, (store, count) in enumerate(zip(overlay.stores, overlay.counts(plan.base), strict=True)):
        mine = which == number
        assert np.array_equal(np.sort(uses[mine]), np.arange(count))
        assert np.all(there.store[at[mine]] == plan.stores.index(store))
        assert np.array_equal(overlay.slots_of(plan.base, number, uses[mine]), at[mine])
        assert not len(overlay.slots_of(plan.base, number, np.array([count, count + 7])))
    assert np.array_equal(np.sort(np.concatenate(list(overlay.touched(plan.base)))), at)
    store = data.draw(st.sampled_from(overlay.stores))
    row = data.draw(st.integers(0, ROWS[store] - 1))
    expected = np.flatnonzero((there.store == plan.stores.index(store)) & (there.row == row))
    assert np.array_equal(where(plan, store, row), expected)


@st.composite
def constant_mixtures(draw, most):
    """A mixture and, in whole numbers, what each store has of a block."""
    stores = [f"k{n:02}" for n in range(draw(st.integers(2, most)))]
    parts = [draw(st.integers(1, draw(st.sampled_from([3, 40])))) for _ in stores]
    return ",".join(f"{store}:{part}/{sum(parts)}" for store, part in zip(stores, parts, strict=True)), parts


@settings(max_examples=60, deadline=None)
@given(constant_mixtures(4), st.integers(0, 2**32))
def test_shares_are_exact_in_every_block_and_to_within_a_row_anywhere(mixture, seed):
    text, parts = mixture
    deal = make_deal(parse_schedule("[0.1,0.2) 1; [0.5,1) 1->3"), parse_shares(text), 2000, seed)
    which, uses = _by_rank(deal, 500)
    counts, ranks = np.cumsum(which[:, None] == np.arange(len(parts)), axis=0), np.arange(1, 501)[:, None]
    off = counts * sum(parts) - ranks * parts
    assert np.all(np.abs(off) < sum(parts))
    assert np.all(off[sum(parts) - 1 :: sum(parts)] == 0)
    assert np.array_equal(uses, counts[np.arange(500), which] - 1)
    assert all(deal.counts(n) == tuple(counts[n - 1].tolist()) for n in (1, 17, 500))


@settings(max_examples=40, deadline=None)
@given(constant_mixtures(16), st.integers(0, 2**32))
def test_many_stores_stay_close(mixture, seed):
    text, parts = mixture
    deal = make_deal(parse_schedule("1"), parse_shares(text), 1000, seed)
    halvings = (len(parts) - 1).bit_length()
    for taken in (1, 5, 333, 1000):
        for part, count in zip(parts, deal.counts(taken), strict=True):
            assert abs(count - taken * part / sum(parts)) < max(1, halvings / 2)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([GROWING, MIXTURES[4]]), st.sampled_from(SCHEDULES), doses)
def test_each_window_has_its_shares(mixture, schedule, dose):
    plan = lay(mixture, dose, schedule)
    there, shares = everything(plan), parse_shares(mixture)
    for (start, end), ramps in zip(zip(shares.edges, shares.edges[1:], strict=False), shares.windows, strict=True):
        inside = slice(int(start * 1200), int(end * 1200))
        mine = there.overlay[inside] == 0
        for store in shares:
            count = np.sum(mine & (there.store[inside] == plan.stores.index(store)))
            assert abs(count - mine.sum() * (ramps[store].mean if store in ramps else 0)) < 1


@pytest.mark.parametrize("slots", [9600, 96 * 125_000, 10_001, 4003])
def test_a_published_curriculum(slots):
    asked = {"k1": Fraction(25, 96), "k2": Fraction(13, 96), "k3": Fraction(7, 96), "k4": Fraction(3, 96)}
    plan = make_plan(Replace(GROWING, "0.5", 1), slots=slots)
    (overlay,) = plan.overlays
    assert sum(overlay.counts(plan.base)) == overlay.asked(plan.base) == (slots + 1) // 2
    for store, count, ideal in zip(overlay.stores, overlay.counts(plan.base), overlay.ideals(plan.base), strict=True):
        if slots % 96 == 0:
            assert count == ideal == asked[store] * slots
        else:
            assert abs(ideal - asked[store] * slots) < 4  # the windows are rounded to whole slots
            assert abs(count - ideal) < 4


def test_a_ramp_of_shares():
    text = "[0,0.5) k1:1; [0.5,1) k1:1->0,k2:0->1"
    plan = make_plan(Replace(text, "0.5", 1), slots=64_000)
    there = everything(plan)
    per_tenth = np.sum((there.store == plan.stores.index("k2")).reshape(10, -1), axis=1)
    assert np.all(per_tenth[:5] == 0)
    assert np.abs(per_tenth[5:] - [320, 960, 1600, 2240, 2880]).max() < 40
    for slots in (64_000, 3000, 320):  # also where a step of the ramp has one row or none
        plan = make_plan(Replace("[0,0.5) k1:1; [0.5,1) k1:0.7->0.9,k2:0.3->0.1", "0.2", 1), slots=slots)
        (overlay,) = plan.overlays
        assert abs(overlay.ideals(plan.base)[1] - slots * Fraction(1, 50)) < 1  # its steps end at whole slots
        assert abs(overlay.counts(plan.base)[1] - slots / 50) < 5
        plan = make_plan(Replace("k1:0.5->0.2,k2:0.2->0.5,k3:0.3", "0.2", 1, schedule="0->1"), slots=slots)
        (overlay,) = plan.overlays
        for count, ideal in zip(overlay.counts(plan.base), overlay.ideals(plan.base), strict=True):
            assert abs(count - ideal) < 8


def test_a_dose_of_nothing_is_no_change():
    for mixture in MIXTURES:
        plan = make_plan(Replace(mixture, 0, 1))
        assert plan.digest() == make_plan().digest()
        assert np.array_equal(everything(plan).row, everything(make_plan()).row)
        assert plan.used_stores == make_plan().used_stores
        assert ledger(plan, 8).overlays[0].slots == 0


def test_the_slots_do_not_depend_on_the_stores():
    alone, mixed = (everything(make_plan(Replace(m, "0.1", 1))) for m in ("k1", "k1:1/3,k2:1/3,k3:1/3"))
    assert np.array_equal(alone.overlay, mixed.overlay)
    one, other = (GROWING, GROWING.replace("k4", "k5").replace("k1", "k2x"))
    rows = ROWS | {"k5": 40, "k2x": 60}
    assert np.array_equal(*(everything(make_plan(Replace(m, "0.5", 1), rows=rows)).overlay for m in (one, other)))


def test_a_mixture_has_the_slots_of_a_schedule_that_is_cut_alike():
    quarters = "[0,1/4) 1; [1/4,1/2) 1; [1/2,3/4) 1; [3/4,1) 1"
    growing = make_plan(Replace(GROWING, "0.2", 1))
    same = make_plan(Replace(GROWING, "0.2", 1, schedule=quarters))
    uniform = make_plan(Replace("k1:1/4,k2:1/4,k3:1/4,k4:1/4", "0.2", 1, schedule=quarters))
    assert growing.digest() == same.digest()
    assert np.array_equal(everything(growing).overlay, everything(uniform).overlay)


def test_a_store_has_one_order_in_all_mixtures():
    orders = []
    for mixture, dose in (("k1", "0.02"), ("k1:1/2,k2:1/2", "0.05"), (GROWING, "0.1")):
        plan = make_plan(Replace(mixture, dose, 1))
        (overlay,), every = plan.overlays, np.arange(1200)
        at, which, uses = overlay.touch(plan.base, every, every, every)
        rows = everything(plan).row[at[which == 0]]
        orders.append(rows[np.argsort(uses[which == 0])][:24].tolist())
    assert orders[0] == orders[1] == orders[2]
    assert len(set(orders[0])) == 24


def test_digests_cover_the_mixture_and_no_more():
    def digest(mixture, **window):
        return make_plan(Replace(mixture, "0.1", 1, **window)).digest()

    assert digest("k2:1/2,k1:0.5") == digest("k1:1/2,k2:1/2,k3:0")
    assert digest("k1:1") == digest("[0,0.3) k1:1; [0.3,1) k1:1") == digest("k1")
    changing = "[0,1/2) k1:1/2,k3:1/2; [1/2,1) k1:1/4,k3:3/4"
    assert digest(changing, start="0.5") == digest("k1:1/4,k3:3/4", start="0.5")
    assert len({digest(mixture) for mixture in [*MIXTURES, changing, "k1:1/4,k3:3/4"]}) == len(MIXTURES) + 2


def test_mixtures_are_values():
    assert Replace("k1:1", "0.1", 3) == Replace({"k1": 1}, "0.1", 3) == Replace("k1", Fraction(1, 10), 3)
    assert len({Replace(GROWING, "0.1", 3), Replace(parse_shares(GROWING), "0.1", 3)}) == 1
    assert Replace("k1:1/3,k2:2/3", 0, 3).mixture == "k1:1/3,k2:2/3"


@pytest.mark.parametrize("mixture", [GROWING, "k1:0.123456789012,k2:0.876543210988", MIXTURES[5]])
def test_a_huge_stage_takes_no_more_memory_than_a_small_one(mixture):
    slots, rows = 10**12, dict.fromkeys(ROWS, 10**12)
    some = np.sort(np.random.default_rng(0).integers(0, slots, 300))
    tracemalloc.start()
    plan = make_plan(Replace(mixture, "0.1", 1, schedule="[0,0.4) 1; [0.45,1) 1->2"), slots=slots, rows=rows)
    there = plan.lookup(some)
    found = [slot for store, row in zip(there.store[:9], there.row[:9], strict=True)
             for slot in where(plan, plan.stores[store], int(row))]  # fmt: skip
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6
    assert set(some[:9].tolist()) <= set(found)
    (overlay,) = plan.overlays
    every = np.sort(some)
    at, which, uses = overlay.touch(plan.base, every, every, every)
    for number in range(len(overlay.stores)):
        assert np.array_equal(overlay.slots_of(plan.base, number, uses[which == number]), every[at[which == number]])
    assert (
        max(abs(n - ideal) for n, ideal in zip(overlay.counts(plan.base), overlay.ideals(plan.base), strict=True)) < 9
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(MIXTURES), st.sampled_from(SCHEDULES), doses), min_size=1, max_size=2),
    st.booleans(),
)
def test_ledgers_are_those_of_a_plain_count(choices, filtered):
    overlays = [Replace(mixture, dose, n, schedule=schedule) for n, (mixture, schedule, dose) in enumerate(choices)]
    filters = [Remove("k3", "k4", 9, "1/4")] if filtered else []
    plan = allowed(lambda: make_plan(*filters, *overlays))
    book, there = ledger(plan, 16), everything(plan)
    for number, line in enumerate(book.stores):
        used = there.row[there.store == number]
        assert (line.slots, line.duplicates) == (len(used), len(used) - len(np.unique(used)))
    for number, change in enumerate(book.overlays):
        mine = there.overlay == number
        assert change.slots == mine.sum() == sum(change.displaced.values()) == sum(line.slots for line in change.stores)
        for line in change.stores:
            store = plan.stores.index(line.store)
            rows, others = there.row[mine & (there.store == store)], there.row[~mine & (there.store == store)]
            assert line.slots == len(rows)
            assert line.duplicates == len(rows) - len(set(rows.tolist()) - set(others.tolist()))
        assert change.duplicates == sum(line.duplicates for line in change.stores)


def test_a_ledger_names_every_store_of_a_mixture():
    plan = make_plan(Replace(GROWING, "0.08", 1), Replace("k3", "0.01", 2))
    mixed, single = ledger(plan, 10).to_json()["overlays"]
    assert mixed["store"] == "k1, k2, k3, k4"
    assert [(line["store"], line["asked_slots"]) for line in mixed["stores"]] == [
        ("k1", 50), ("k2", 26), ("k3", 14), ("k4", 6)]  # fmt: skip
    assert single["store"] == "k3"
    assert "stores" not in single
    assert sum(line.startswith("    ") for line in render(ledger(plan, 10)).splitlines()) == 4
    assert f"puts the mixture {plan.overlays[0].mixture} into 0.08 of all slots" in str(show(plan, 10))


def test_the_cap_on_repetition_is_for_each_store():
    rows = ROWS | {"web": 2000, "k3": 400}

    def plan(mixture):
        return Plan(BasePlan({"web": 1}, rows, 1200, 3, 1), (Replace(mixture, "0.1", 1),), rows)

    plan("k1:1/2,k2:1/2")
    with pytest.raises(UserError, match=r"'k2' has 70 rows but 80 are needed[\s\S]*overlays\[0\].dose"):
        plan("k1:1/3,k2:2/3")


@pytest.mark.parametrize(
    ("mixture", "parts"),
    [
        ("k1:1/2,k22:1/2", ["'k22'", "did you mean 'k2'", "overlays[0].mixture"]),
        ("k1:0.9999,k2:0.0001", ["'k2'", "gets none of the dose's 120 slots", "overlays[0].mixture"]),
        ("[0,0.5) k1:1; [0.5,0.5001) k2:1; [0.5001,1) k1:1", ["'k2'", "gets none of the dose's"]),
        ("k1:0.5,k2:0.6", ["add up to 1.1", "mixture"]),
        ("k1,k2", ["'k1' is not STORE:SHARE"]),
        ("", ["mixture"]),
    ],
)
def test_mistakes_are_named(mixture, parts):
    with pytest.raises(UserError) as error:
        make_plan(Replace(mixture, "0.1", 1))
    for part in parts:
        assert part in str(error.value)


def _by_rank(deal, taken):
    """The store and the use of each rank, as `touch` says of all slots."""
    every = np.arange(deal.order.slots)
    _, which, uses = deal.touch(every, taken)
    by_rank = np.argsort(deal.order.touch(every, taken)[1])
    return which[by_rank], uses[by_rank]
