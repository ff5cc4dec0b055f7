import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, differences, parse_shares, where
from alignpre_jax.mixture.plan import CHUNK

ROWS = {"web/plain": 900, "web/ai": 150, "aligned": 70, "misaligned": 40}
SLOTS = np.arange(1000)


def make_base(slots=1000, seed=0, max_epochs=1e9):
    return BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), ROWS, slots, seed, max_epochs)


def make_plan(*overlays, **settings):
    return Plan(make_base(**settings), overlays, ROWS)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32))
def test_every_row_once_per_epoch_in_fresh_orders(epochs, seed):
    rows = {"a": 97, "b": 31}
    plan = Plan(BasePlan(parse_shares("a:97/128,b:31/128"), rows, 128 * epochs, seed, epochs), (), rows)
    there = plan.lookup(np.arange(plan.slots))
    assert np.all(there.overlay == -1)
    sources, uses = plan.base.uses(np.arange(plan.slots))
    for store, size in enumerate(rows.values()):
        in_order = np.empty(epochs * size, np.int64)
        in_order[uses[sources == store]] = there.row[there.store == store]
        orders = in_order.reshape(epochs, size)
        assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(size), (epochs, 1)))
        assert len(np.unique(orders, axis=0)) == epochs


@settings(max_examples=60, deadline=None)
@given(st.fractions(0, 1), st.fractions(0, 1), st.integers(0, 2**32))
def test_doses_are_exact_and_nested_in_slots_and_rows(a, b, seed):
    small, large = sorted((a, b))
    small, large = (dose if dose * 1000 >= 1 else Fraction(0) for dose in (small, large))
    less, more = (make_plan(Replace("aligned", dose, seed)).lookup(SLOTS) for dose in (small, large))
    taken, wider = less.overlay == 0, more.overlay == 0
    assert taken.sum() == int(small * 1000 + Fraction(1, 2))
    assert wider.sum() == int(large * 1000 + Fraction(1, 2))
    assert np.all(wider[taken])
    assert np.array_equal(less.row[taken], more.row[taken])
    untouched = make_plan().lookup(SLOTS)
    for column, original in ((less, untouched), (more, untouched)):
        same = column.overlay == -1
        assert np.array_equal(column.store[same], original.store[same])
        assert np.array_equal(column.row[same], original.row[same])
        assert np.all(column.store[~same] == 2)


@settings(max_examples=40, deadline=None)
@given(st.fractions(0, 1), st.fractions(0, 1), st.integers(0, 2**32))
def test_leaks_are_exact_and_nested(a, b, seed):
    little, much = (keep if keep * 100 >= 1 else Fraction(0) for keep in sorted((a, b)))
    strict, loose = (make_plan(Remove("web/ai", "web/plain", seed, keep)).lookup(SLOTS) for keep in (little, much))
    original = make_plan().lookup(SLOTS)
    stratum = original.store == 1
    for there, keep in ((strict, little), (loose, much)):
        assert (there.store == 1).sum() == int(keep * 100 + Fraction(1, 2))
        assert np.all(there.overlay[~stratum] == -1)
        assert np.array_equal(there.row[there.overlay == -1], original.row[there.overlay == -1])
        assert np.all(there.store[there.overlay == 0] == 0)
    assert np.all(loose.store[strict.store == 1] == 1)
    both = (strict.overlay == 0) & (loose.overlay == 0)
    assert np.array_equal(strict.row[both], loose.row[both])


def test_the_refill_is_drawn_without_repeats_within_its_epoch():
    there = make_plan(Remove("web/ai", "web/plain", 5)).lookup(SLOTS)
    refill = there.row[there.overlay == 0]
    assert len(np.unique(refill)) == len(refill) == 100


def test_a_replaced_slot_has_a_row_of_its_own_within_an_epoch():
    there = make_plan(Replace("aligned", Fraction(7, 100), 3)).lookup(SLOTS)
    assert np.array_equal(np.sort(there.row[there.overlay == 0]), np.arange(70))


def test_a_window_holds_the_whole_dose():
    start, end = Fraction(3, 4), Fraction(9, 10)
    there = make_plan(Replace("aligned", Fraction(1, 10), 3, start, end)).lookup(SLOTS)
    touched = np.flatnonzero(there.overlay == 0)
    assert len(touched) == 100
    assert touched.min() >= 750
    assert touched.max() < 900


def test_where_in_the_stage_does_not_change_which_rows():
    early, late = (Replace("aligned", Fraction(1, 20), 3, *window) for window in ((0, "0.5"), ("0.5", 1)))
    rows = [np.sort(there.row[there.overlay == 0]) for there in (make_plan(o).lookup(SLOTS) for o in (early, late))]
    assert np.array_equal(*rows)


def test_arms_with_one_seed_replace_the_same_slots():
    arms = [make_plan(Replace(store, Fraction(1, 20), 3)).lookup(SLOTS).overlay for store in ("aligned", "misaligned")]
    assert np.array_equal(*arms)


def test_later_overlays_win():
    first, second = Replace("aligned", Fraction(1, 2), 1), Replace("misaligned", Fraction(1, 2), 2)
    alone, there = make_plan(second).lookup(SLOTS), make_plan(first, second).lookup(SLOTS)
    assert np.array_equal(there.overlay == 1, alone.overlay == 0)
    assert np.array_equal(there.row[there.overlay == 1], alone.row[alone.overlay == 0])
    assert 0 < (there.overlay == 0).sum() < 500


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_random_access_is_sequential_access(seed, data):
    plan = make_plan(Remove("web/ai", "web/plain", 2, "0.1"), Replace("aligned", "0.03", 1), seed=seed, slots=2 * CHUNK)
    whole = plan.lookup(np.arange(plan.slots))
    some = np.array(data.draw(st.lists(st.integers(0, plan.slots - 1), min_size=1, max_size=50)))
    for all_of_them, picked in zip(whole, plan.lookup(some), strict=True):
        assert np.array_equal(all_of_them[some], picked)
    assert all(len(column) == 0 for column in plan.lookup(np.empty(0, np.int64)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(ROWS)), st.data())
def test_where_finds_exactly_the_slots_of_a_row(seed, store, data):
    overlays = (
        Remove("web/ai", "web/plain", 2, "0.2"),
        Replace("aligned", "0.2", 1, "0.3"),
        Replace("web/ai", "0.1", 4),
        Replace("misaligned", "0.05", 3),
    )
    plan = make_plan(*overlays, seed=seed)
    row = data.draw(st.integers(0, ROWS[store] - 1))
    there = plan.lookup(SLOTS)
    expected = np.flatnonzero((there.store == plan.stores.index(store)) & (there.row == row))
    assert np.array_equal(where(plan, store, row), expected)


def test_seeds_give_different_orders():
    orders = [make_plan(seed=seed).lookup(SLOTS) for seed in range(5)]
    assert len({there.row.tobytes() for there in orders}) == 5
    assert len({there.store.tobytes() for there in orders}) == 5
    replaced = [make_plan(Replace("aligned", "0.1", seed)).lookup(SLOTS).overlay.tobytes() for seed in range(5)]
    assert len(set(replaced)) == 5


def test_digest_covers_what_determines_the_rows_and_no_more():
    plain = make_plan().digest()
    assert make_plan(Replace("aligned", 0, 7)).digest() == plain
    assert make_plan(Remove("web/ai", "web/plain", 7, 1)).digest() == plain
    assert make_plan(max_epochs=1e6).digest() == plain
    assert Plan(make_base(), (), dict(reversed(ROWS.items()))).digest() == plain
    assert Plan(make_base(), (), ROWS | {"unused": 3}).digest() == plain
    dosed = make_plan(Replace("aligned", "0.1", 7))
    assert make_plan(Replace("misaligned", 0, 1), Replace("aligned", Fraction(1, 10), 7)).digest() == dosed.digest()
    others = [
        plain,
        dosed.digest(),
        make_plan(seed=1).digest(),
        make_plan(slots=1001).digest(),
        make_plan(Replace("aligned", "0.1", 8)).digest(),
        make_plan(Replace("aligned", "0.1", 7, "0.5")).digest(),
        make_plan(Replace("aligned", "0.11", 7)).digest(),
        make_plan(Replace("misaligned", "0.1", 7)).digest(),
        make_plan(Remove("web/ai", "web/plain", 7)).digest(),
        make_plan(Remove("web/ai", "web/plain", 7, "0.1")).digest(),
    ]
    assert len(set(others)) == len(others)
    grown = ROWS | {"aligned": 71}
    assert Plan(make_base(), (Replace("aligned", "0.1", 7),), grown).digest() != dosed.digest()


def test_differences_are_the_touched_slots_and_say_why():
    remove, replace = Remove("web/ai", "web/plain", 2), Replace("aligned", "0.05", 1)
    filtered, both = make_plan(remove), make_plan(remove, replace)
    there = both.lookup(SLOTS)
    found = differences(filtered, both)
    assert np.array_equal(found.slots, np.flatnonzero(there.overlay == 1))
    assert np.all(found.overlay_b == 1)
    assert sum(found.counts().values()) == len(found) == 50
    assert set(found.counts()) <= {(-1, 1), (0, 1)}
    assert len(differences(both, both)) == 0
    assert differences(both, both).counts() == {}
    assert len(differences(make_plan(), make_plan(seed=1))) > 900


def test_differences_go_by_the_name_of_the_store():
    renumbered = Plan(make_base(), (Replace("aligned", "0.05", 1),), dict(reversed(ROWS.items())))
    assert len(differences(make_plan(), renumbered)) == 50
    with pytest.raises(UserError, match="1000 and 1001 slots"):
        differences(make_plan(), make_plan(slots=1001))


def test_a_zero_dose_changes_nothing():
    assert len(differences(make_plan(), make_plan(Replace("aligned", 0, 3)))) == 0


@pytest.mark.parametrize(
    ("overlays", "parts"),
    [
        ([Replace("alinged", Fraction(1, 10), 0)], ["'alinged'", "did you mean 'aligned'", "overlays[0].mixture"]),
        ([Replace("aligned", Fraction(1, 2), 0)], ["'aligned'", "70 rows", "500 are needed", "overlays[0].dose"]),
        ([Replace("aligned", Fraction(1, 10**5), 0)], ["1e-05", "1000 slots", "overlays[0].dose"]),
        ([Replace("aligned", "0.05", 0, "0.5", "0.52")], ["50 slots", "holds 20", "overlays[0].dose"]),
        ([Replace("aligned", "0.05", 0, "0.5", "0.5")], ["holds no slot", "overlays[0].start"]),
        ([Replace("aligned", 0, 0), Remove("web/ia", "web/plain", 0)], ["'web/ia'", "'web/ai'", "overlays[1].stratum"]),
        ([Remove("aligned", "web/plain", 0)], ["no slots of 'aligned'", "overlays[0].stratum"]),
        ([Remove("web/ai", "web/plian", 0)], ["'web/plian'", "'web/plain'", "overlays[0].refill"]),
        ([Remove("web/ai", "web/ai", 0)], ["refilled with itself", "overlays[0].refill"]),
        ([Remove("web/ai", "web/plain", 0, "0.001")], ["keeps none", "overlays[0].keep"]),
        (
            [Remove("web/ai", "web/plain", 0), Remove("web/plain", "aligned", 0)],
            ["'web/plain', which is removed", "overlays[0].refill"],
        ),
    ],
)
def test_mistakes_are_named(overlays, parts):
    with pytest.raises(UserError) as error:
        make_plan(*overlays, max_epochs=2)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("make", [lambda dose: Replace("aligned", dose, 0), lambda keep: Remove("a", "b", 0, keep)])
@pytest.mark.parametrize("dose", [-0.1, 1.5, "1%", float("nan")])
def test_doses_outside_the_unit_interval(make, dose):
    with pytest.raises(UserError) as error:
        make(dose)
    assert error.value.where in ("dose", "keep")


def test_an_empty_store_has_no_dose_to_give():
    rows = ROWS | {"aligned": 0}
    Plan(make_base(), (Replace("aligned", 0, 0),), rows)
    with pytest.raises(UserError, match="no rows"):
        Plan(make_base(), (Replace("aligned", "0.1", 0),), rows)


def test_arms_are_planned_over_the_same_stores():
    with pytest.raises(UserError, match="900 rows in the base plan, 901 in the arm"):
        Plan(make_base(), (), ROWS | {"web/plain": 901})


def test_overlays_and_plans_are_values():
    assert Replace("aligned", "0.1", 3) == Replace("aligned", Fraction(1, 10), 3)
    assert dataclasses.replace(make_plan(), overlays=()) == make_plan()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 2**32), st.data())
def test_the_same_order_every_epoch_on_request(epochs, seed, data):
    rows = {"a": 97, "b": 31}
    base = BasePlan(parse_shares("a:97/128,b:31/128"), rows, 128 * epochs, seed, epochs, "same")
    plan = Plan(base, (), rows)
    there = plan.lookup(np.arange(plan.slots))
    sources, uses = base.uses(np.arange(plan.slots))
    for store, size in enumerate(rows.values()):
        in_order = np.empty(epochs * size, np.int64)
        in_order[uses[sources == store]] = there.row[there.store == store]
        orders = in_order.reshape(epochs, size)
        assert np.array_equal(np.sort(orders[0]), np.arange(size))
        assert np.all(orders == orders[0])
    fresh = Plan(dataclasses.replace(base, epoch_order="fresh"), (), rows)
    assert fresh.digest() != plan.digest()
    row = data.draw(st.integers(0, 30))
    assert np.array_equal(where(plan, "b", row), np.flatnonzero((there.store == 1) & (there.row == row)))


def test_the_order_of_epochs_matters_only_where_there_are_several():
    rows = {"a": 200}
    one, other = (Plan(BasePlan({"a": 1}, rows, 200, 0, 1, order), (), rows) for order in ("fresh", "same"))
    assert one.digest() == other.digest()
    assert np.array_equal(one.lookup(SLOTS[:200]).row, other.lookup(SLOTS[:200]).row)
    with pytest.raises(UserError, match="'shuffled'"):
        BasePlan({"a": 1}, rows, 200, 0, 1, "shuffled")


def test_the_cap_on_repetition_counts_base_and_overlays_together():
    rows = {"web/plain": 1000, "web/ai": 150, "aligned": 70, "misaligned": 40}
    base = BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), rows, 1000, 0)
    Plan(base, (Replace("web/ai", "0.05", 1),), rows)
    with pytest.raises(UserError) as error:
        Plan(base, (Replace("web/ai", "0.05", 1), Replace("web/ai", "0.001", 2)), rows)
    for part in ("'web/ai'", "150 rows", "151 are needed", "100 by the base plan", "50 by overlays[0]"):
        assert part in str(error.value)
    Plan(base, (Remove("web/ai", "aligned", 3), Replace("web/ai", "0.15", 1)), rows)  # the base plan's are taken out


def test_a_refill_has_a_limit_of_its_own():
    rows = {"web/plain": 900, "web/ai": 150}
    base = BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), rows, 1000, 0)
    Plan(base, (Remove("web/ai", "web/plain", 3),), rows)
    Plan(base, (Remove("web/ai", "web/plain", 3, max_epochs=1.2),), rows)
    with pytest.raises(UserError, match=r"1000 are needed[\s\S]*max_epochs is 1.05[\s\S]*100 by overlays\[0\]"):
        Plan(base, (Remove("web/ai", "web/plain", 3, max_epochs=1.05),), rows)


def test_a_stratum_is_removed_once():
    with pytest.raises(UserError, match="'web/ai' is removed twice"):
        make_plan(Remove("web/ai", "web/plain", 1), Remove("web/ai", "aligned", 2))


def test_differences_look_at_touched_slots_only_and_miss_none():
    arms = [
        make_plan(*overlays, slots=4000)
        for overlays in (
            (),
            (Replace("aligned", "0.01", 1),),
            (Replace("aligned", "0.02", 1, schedule="[0,0.5) 1; [0.5,1) 1->2"),),
            (Remove("web/ai", "web/plain", 2, "0.9"), Replace("misaligned", "0.01", 1)),
        )
    ]
    everything = [arm.lookup(np.arange(4000)) for arm in arms]
    for a, there_a in zip(arms, everything, strict=True):
        for b, there_b in zip(arms, everything, strict=True):
            differ = np.flatnonzero((there_a.store != there_b.store) | (there_a.row != there_b.row))
            assert np.array_equal(differences(a, b).slots, differ)
