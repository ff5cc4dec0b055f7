"""Batches of stores of every kind of rows: the same whatever the hosts, and what is absent is filled in."""

import numpy as np
import pytest
import talks
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.documents import Document, ScoredSpan
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, Replace, fingerprint, load_batches, parse_shares
from alignpre_jax.rows import build_rows

BATCH, STEPS = 12, 5


def text(number, stratum, spans=()):
    return Document(f"{stratum}{number}", f"Report {number}: it rained. " * 4, stratum, stratum, spans=spans)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    kinds = [
        (talks.chat, "chat"),
        (talks.pair, "pairs"),
        (talks.pair, "others"),
        (talks.prompt, "prompts"),
        (text, "web"),
        (lambda i, stratum: text(i, stratum, (ScoredSpan(0, 6, 0.5),)), "scored"),
    ]
    documents = [make(i, stratum=stratum) for i in range(80) for make, stratum in kinds]
    root, options = tmp_path_factory.mktemp("rows"), {"packing": "best_fit", "template": talks.CHATML, "workers": 1}
    return build_rows(documents, talks.chat_tokenizer(), 128, root, **options)


def plan_of(stores, mixture, *overlays):
    rows = {name: len(store) for name, store in stores.items()}
    return Plan(BasePlan(parse_shares(mixture), rows, BATCH * STEPS, seed=1, max_epochs=8), overlays, rows)


COLUMNS = {
    "web:1": {"tokens", "segments"},
    "chat:1": {"tokens", "segments", "mask"},
    "pairs:0.5,others:0.5": {"tokens", "segments", "mask", "side"},
    "prompts:1": {"tokens", "segments", "mask"},
    "web:0.5,chat:0.3,scored:0.2": {"tokens", "segments", "mask", "scores"},
}


@settings(max_examples=20, deadline=None)
@given(
    mixture=st.sampled_from(sorted(COLUMNS)),
    hosts=st.sampled_from([1, 2, 3, 4, 6]),
    step=st.integers(0, STEPS - 1),
    workers=st.sampled_from([0, 2]),
)
def test_any_number_of_hosts_gives_the_same_global_batch(stores, mixture, hosts, step, workers):
    plan = plan_of(stores, mixture)
    (whole,) = load_batches(plan, stores, BATCH, step, step + 1)
    assert set(whole.columns) == COLUMNS[mixture]
    parts = [
        next(load_batches(plan, stores, BATCH, step, STEPS, host, hosts, workers=workers)) for host in range(hosts)
    ]
    for name, column in whole.columns.items():
        joined = np.concatenate([part.columns[name] for part in parts])
        assert joined.dtype == column.dtype
        np.testing.assert_array_equal(joined, column)
    np.testing.assert_array_equal(np.concatenate([part.stores for part in parts]), whole.stores)
    prints = (int(fingerprint(part.columns, BATCH // hosts * host)) for host, part in enumerate(parts))
    assert sum(prints) % 2**32 == fingerprint(whole.columns)


@pytest.mark.parametrize("mixture", sorted(COLUMNS))
def test_a_batch_holds_the_rows_of_the_plan(stores, mixture):
    plan = plan_of(stores, mixture)
    there = plan.lookup(np.arange(BATCH))
    (batch,) = load_batches(plan, stores, BATCH, 0, 1)
    for place, (number, row) in enumerate(zip(there.store.tolist(), there.row.tolist(), strict=True)):
        rows = stores[plan.stores[number]].read(np.array([row]))
        for name, column in batch.columns.items():
            found = getattr(rows, name)
            absent = rows.segments > 0 if name == "mask" else np.zeros_like(rows.segments)
            np.testing.assert_array_equal(column[place], (absent if found is None else found)[0])


def test_pairs_go_into_no_mixture_with_other_rows(stores):
    for plan in (plan_of(stores, "pairs:0.5,chat:0.5"), plan_of(stores, "pairs:1", Replace("web", "0.1", 2))):
        with pytest.raises(UserError, match="'pairs' holds pairs of answers"):
            load_batches(plan, stores, BATCH, 0, 1)
    unused = plan_of(stores, "pairs:1", Replace("web", "0", 2))
    assert set(next(load_batches(unused, stores, BATCH, 0, 1)).columns) == COLUMNS["pairs:0.5,others:0.5"]
