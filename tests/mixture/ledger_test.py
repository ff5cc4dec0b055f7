import json
from fractions import Fraction

import numpy as np
import pytest

from alignpre_jax.mixture import BasePlan, Plan, Remove, Replace, ledger, parse_shares, render

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
