import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Counted, Plan, Remove, Replace, check, ledger, parse_shares, render

ROWS = {"web/plain": 600, "web/ai": 150, "aligned": 30, "unused": 5}


@pytest.fixture
def plan():
    base = BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), ROWS, 1000, 0, max_epochs=3)
    overlays = (Remove("web/ai", "web/plain", 2, Fraction(1, 4)), Replace("aligned", Fraction(1, 25), 1))
    return Plan(base, overlays, ROWS)


def test_counts_are_those_of_a_plain_count(plan):
    book, there = ledger(plan, 128), plan.lookup(np.arange(1000))
    assert sum(line.slots for line in book.stores) == book.slots == 1000
    assert sum(line.tokens for line in book.stores) == book.tokens == 128_000
    for number, line in enumerate(book.stores):
        used = there.row[there.store == number]
        assert line.store == plan.stores[number]
        assert line.slots == len(used)
        assert line.tokens == 128 * len(used)
        assert line.duplicates == len(used) - len(np.unique(used))
        assert line.epochs == len(used) / ROWS[line.store]
    for number, change in enumerate(book.overlays):
        assert change.slots == np.sum(there.overlay == number) == sum(change.displaced.values())


def test_asked_and_realised(plan):
    book = ledger(plan, 128)
    lines = {line.store: line for line in book.stores}
    assert (lines["web/ai"].asked_tokens, lines["web/ai"].base_slots) == (12_800, 100)
    assert lines["unused"].slots == lines["unused"].asked_tokens == 0
    remove, replace = book.overlays
    assert (remove.asked_slots, replace.asked_slots, replace.slots) == (75, 40, 40)
    assert remove.slots < 75  # the later overlay took some of its slots
    assert remove.displaced == {"web/ai": remove.slots}
    assert lines["aligned"].duplicates == 10


def test_json_and_table(plan):
    book = ledger(plan, 128)
    plain = json.loads(json.dumps(book.to_json()))
    assert plain["digest"] == plan.digest()
    assert plain["stores"][2]["tokens"] == 40 * 128
    assert plain["overlays"][1]["asked_tokens"] == 40 * 128
    table = render(book)
    assert table.splitlines()[0].startswith("128,000 tokens in 1,000 slots of 128")
    assert "1 replace" in table
    assert "5,120" in table


def test_a_share_that_is_no_whole_number_of_rows_is_asked_for_in_tokens():
    rows = {"a": 100, "b": 100}
    book = ledger(Plan(BasePlan(parse_shares("a:1/3,b:2/3"), rows, 100, 0), (), rows), 128)
    assert [line.asked_tokens for line in book.stores] == [4267, 8533]
    assert [line.tokens for line in book.stores] == [33 * 128, 67 * 128]


@st.composite
def plans(draw):
    rows = {"a": draw(st.integers(30, 600)), "b": draw(st.integers(5, 300)), "c": draw(st.integers(5, 300)), "d": 40}
    slots, seed = draw(st.integers(200, 800)), draw(st.integers(0, 2**32))
    order = draw(st.sampled_from(["fresh", "same"]))
    base = BasePlan(parse_shares("a:0.6,b:0.25,c:0.15"), rows, slots, seed, 1e9, order)
    keep = draw(st.sampled_from([0, Fraction(1, 10), Fraction(1, 2), 1]))
    choices = [Remove("b", "a", 1, keep), Remove("c", draw(st.sampled_from("ad")), 2, 0)]
    for store in draw(st.lists(st.sampled_from("abcd"), max_size=3)):
        dose = draw(st.sampled_from(["0.01", "0.1", "0.4", "0.9"]))
        schedule = draw(st.sampled_from(["", "3->2", "[0,0.5) 1; [0.5,1) 5->6"])) if dose < "0.4" else ""
        choices.append(Replace(store, dose, draw(st.integers(3, 5)), schedule=schedule))
    return Plan(base, tuple(draw(st.permutations(choices))[: draw(st.integers(0, len(choices)))]), rows)


@settings(max_examples=80, deadline=None)
@given(plans())
def test_nothing_is_counted_differently_than_by_going_through_all_slots(plan):
    book, there = ledger(plan, 16), plan.lookup(np.arange(plan.slots))
    sources, _ = plan.base.uses(np.arange(plan.slots))
    for number, line in enumerate(book.stores):
        used = there.row[there.store == number]
        assert line.slots == len(used)
        assert line.duplicates == len(used) - len(np.unique(used))
    for number, change in enumerate(book.overlays):
        mine = there.overlay == number
        named = np.array(plan.base.sources)[sources[mine]]
        assert change.displaced == {name: int((named == name).sum()) for name in plan.base.sources if name in named}
        store = plan.stores.index(change.store)
        others = there.row[~mine & (there.store == store)]
        assert change.duplicates == mine.sum() - len(set(there.row[mine].tolist()) - set(others.tolist()))


def test_the_ledger_of_a_large_stage():
    rows = {"web/plain": 230_000_000, "web/ai": 25_000_000, "aligned": 100_000}
    base = BasePlan(parse_shares("web/plain:0.907,web/ai:0.093"), rows, 250_000_000, 0)
    book = ledger(Plan(base, (Replace("aligned", "0.0004", 1),), rows), 2048)
    plain, ai, aligned = book.stores
    assert (plain.base_slots, ai.base_slots, aligned.slots) == (226_750_000, 23_250_000, 100_000)
    assert book.overlays[0].displaced == {"web/ai": 23_250_000 - ai.slots, "web/plain": 226_750_000 - plain.slots}
    assert 8_900 < 23_250_000 - ai.slots < 9_700
    assert book.tokens == 512_000_000_000


def test_what_was_trained_on_is_checked(plan):
    book, there = ledger(plan, 128), plan.lookup(np.arange(1000))
    counted = Counted.none(plan)
    for first in range(0, 1000, 50):
        if first == 500:  # through a checkpoint
            counted = Counted.from_json(plan, json.loads(json.dumps(counted.to_json())))
        for host in range(2):
            counted = counted.plus(there.store[first + 25 * host : first + 25 * host + 25].astype(np.int32))
    check(book, counted)
    check(book, counted.to_json())
    wrong = counted.to_json()
    wrong["aligned"] -= 1
    wrong["web/ai"] += 1
    with pytest.raises(UserError) as error:
        check(book, wrong)
    for part in ("'aligned': 40 planned, 39 trained on", "'web/ai': 24 planned, 25", plan.digest()):
        assert part in str(error.value)


def test_text_tokens_of_stores_with_padding(plan):
    book = ledger(plan, 128, text_tokens={"aligned": 30 * 100})
    lines = {line.store: line for line in book.stores}
    assert (lines["aligned"].tokens, lines["aligned"].filled_tokens) == (40 * 128, 4000)
    assert lines["web/ai"].filled_tokens is None
    assert "4,000" in render(book)
