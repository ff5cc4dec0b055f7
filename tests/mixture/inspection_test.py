import dataclasses
import json

import numpy as np
import pytest

from alignpre_jax.documents import Document
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import (
    BasePlan,
    Plan,
    Remove,
    Replace,
    batch_at,
    diff,
    load_batches,
    parse_shares,
    show,
    where_document,
)
from alignpre_jax.rows import build_rows, load_tokenizer

BATCH, LENGTH = 8, 16


@pytest.fixture(scope="module", params=["concat", "best_fit"])
def stores(request, tmp_path_factory):
    g = np.random.default_rng(0)
    documents = [
        Document(f"{stratum}-{n}", f"{stratum} {n} " + "x" * int(g.integers(0, 40)), stratum.split("/")[0], stratum)
        for stratum, count in (("web/plain", 100), ("web/ai", 40), ("aligned", 20))
        for n in range(count)
    ]
    root = tmp_path_factory.mktemp("rows")
    return build_rows(documents, load_tokenizer("byte"), LENGTH, root, packing=request.param, workers=1)


def make_plan(stores, *overlays):
    rows = {name: len(store) for name, store in stores.items()}
    return Plan(BasePlan(parse_shares("web/plain:0.9,web/ai:0.1"), rows, 320, 0, 10), overlays, rows)


@pytest.fixture
def plan(stores):
    return make_plan(stores, Remove("web/ai", "web/plain", 2, "0.25"), Replace("aligned", "0.05", 1))


@pytest.mark.parametrize("number", [0, 7, 19])
def test_a_document_is_where_the_batches_have_it(stores, plan, number):
    document = f"aligned-{number}"
    uses = where_document(plan, stores, document, BATCH)
    with_it = {row for row in range(len(stores["aligned"])) if document in _documents(stores["aligned"], row)}
    assert {row for _, row, _, _ in uses.rows} == with_it
    there = plan.lookup(np.arange(320))
    expected = np.flatnonzero((there.store == plan.stores.index("aligned")) & np.isin(there.row, list(with_it)))
    assert [place.slot for place in uses.places] == expected.tolist()
    for place in uses.places:
        assert place.slot == place.step * BATCH + place.place
        assert place.reason == "overlay 1 (replace)"
        contents = batch_at(plan, stores, place.step, BATCH, load_tokenizer("byte"))
        assert document in contents.rows[place.place].documents
    assert document in str(uses)
    with pytest.raises(UserError, match="'aligned-20'"):
        where_document(plan, stores, "aligned-20", BATCH)


def test_a_batch_is_what_the_loader_gives(stores, plan):
    contents = batch_at(plan, stores, 3, BATCH, load_tokenizer("byte"))
    (batch,) = load_batches(plan, stores, BATCH, 3, 4)
    assert [row.store for row in contents.rows] == [plan.stores[number] for number in batch.stores]
    texts = [load_tokenizer("byte").decode(row.tolist()) for row in batch.tokens]
    assert [row.text for row in contents.rows] == texts
    assert json.loads(json.dumps(dataclasses.asdict(contents)))["step"] == 3
    assert "base plan" in str(contents)
    with pytest.raises(UserError, match="step 40 is not in the stage of 40 steps"):
        batch_at(plan, stores, 40, BATCH, load_tokenizer("byte"))


def test_a_diff_says_what_differs_and_why(stores, plan):
    filtered = make_plan(stores, Remove("web/ai", "web/plain", 2, "0.25"))
    found = diff(filtered, plan, LENGTH, BATCH)
    there, before = plan.lookup(np.arange(320)), filtered.lookup(np.arange(320))
    touched = np.flatnonzero(there.overlay == 1)
    assert found.slots - found.same == len(touched) == sum(group.slots for group in found.groups)
    assert {group.store_b for group in found.groups} == {"aligned"}
    assert {group.reason_b for group in found.groups} == {"overlay 1 (replace)"}
    for group in found.groups:
        mine = touched[
            (before.store[touched] == filtered.stores.index(group.store_a))
            & ((before.overlay[touched] == 0) == (group.reason_a == "overlay 0 (remove)"))
        ]
        assert (group.slots, group.first, group.last) == (len(mine), mine[0], mine[-1])
        assert group.tokens == len(mine) * LENGTH
    assert str(found).startswith("16 of 320 slots differ (256 tokens)")
    json.dumps(dataclasses.asdict(found))


def test_arms_that_are_the_same_do_not_differ(stores, plan):
    zero = make_plan(stores, *plan.overlays[:1], Replace("aligned", 0, 1))
    found = diff(zero, make_plan(stores, plan.overlays[0]), LENGTH, BATCH)
    assert (found.same, found.groups) == (320, [])
    assert str(found).startswith("0 of 320 slots differ")


def test_a_plan_at_a_glance(plan):
    found = show(plan, LENGTH)
    text = str(found)
    assert "web/plain:0.9,web/ai:0.1" in text
    assert "removes web/ai and refills its slots from web/plain, 0.25 of it leaks through" in text
    assert "puts aligned into 0.05 of all slots" in text
    assert json.loads(json.dumps(dataclasses.asdict(found)))["ledger"]["slots"] == 320
    scheduled = dataclasses.replace(plan, overlays=(Replace("aligned", "0.05", 1, schedule="[0.5,1) 1->3"),))
    assert "by the schedule [0.5,1) 1->3" in str(show(scheduled, LENGTH))


def _documents(store, row):
    return [span.document_id for span in store.spans(row)]
