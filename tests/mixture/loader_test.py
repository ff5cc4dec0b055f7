import itertools
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, Replace, fingerprint, load_batches, parse_shares

ROWS = {"web": 300, "aligned": 20}
LENGTH = 8


class FakeStore:
    """Row r of store s holds s * 10,000 + r in every place, so that a batch says where it came from."""

    def __init__(self, number: int, rows: int, tokenizer: str = "abc", length: int = LENGTH):
        self.number, self.rows = number, rows
        columns = (("tokens", "<u2"),)
        self.header = SimpleNamespace(tokenizer_digest=tokenizer, length=length, columns=columns)

    def __len__(self) -> int:
        return self.rows

    def read(self, indices: np.ndarray) -> SimpleNamespace:
        assert indices.dtype == np.int64
        tokens = np.repeat((self.number * 10_000 + indices).astype(np.int32)[:, None], self.header.length, axis=1)
        return SimpleNamespace(
            tokens=tokens, segments=np.full_like(tokens, self.number + 1), mask=None, scores=None, side=None
        )


STORES = {name: FakeStore(number, rows) for number, (name, rows) in enumerate(ROWS.items())}
PLAN = Plan(BasePlan(parse_shares("web:1"), ROWS, 240, seed=1), (Replace("aligned", "0.05", 2),), ROWS)


def test_batches_are_the_plan():
    there = PLAN.lookup(np.arange(240))
    batches = list(load_batches(PLAN, STORES, 24, 0, 10))
    assert len(batches) == 10
    tokens = np.concatenate([batch.tokens for batch in batches])
    assert {batch.tokens.dtype for batch in batches} == {np.dtype(np.int32)}
    assert np.array_equal(tokens, np.repeat((there.store * 10_000 + there.row)[:, None], LENGTH, axis=1))
    assert np.array_equal(np.concatenate([batch.stores for batch in batches]), there.store)
    assert np.array_equal(np.concatenate([batch.segments[:, 0] for batch in batches]), there.store + 1)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), st.integers(0, 9), st.sampled_from([0, 1, 3]))
def test_any_number_of_hosts_gives_the_same_global_batch(hosts, step, workers):
    (whole,) = load_batches(PLAN, STORES, 24, step, step + 1)
    slices = [next(load_batches(PLAN, STORES, 24, step, 10, host, hosts, workers=workers)) for host in range(hosts)]
    for column in ("tokens", "segments", "stores"):
        assert np.array_equal(np.concatenate([getattr(part, column) for part in slices]), getattr(whole, column))
    parts = (int(fingerprint(part.columns, 24 // hosts * host)) for host, part in enumerate(slices))
    assert sum(parts) % 2**32 == fingerprint(whole.columns)


@pytest.mark.parametrize("workers", [0, 4])
def test_resuming_is_starting_at_the_step(workers):
    whole = [batch.tokens for batch in load_batches(PLAN, STORES, 24, 0, 10, workers=workers)]
    assert list(load_batches(PLAN, STORES, 24, 0, 0, workers=workers)) == []
    for start in range(11):
        rest = [batch.tokens for batch in load_batches(PLAN, STORES, 24, start, 10, workers=workers)]
        assert len(rest) == 10 - start
        assert all(np.array_equal(a, b) for a, b in itertools.zip_longest(whole[start:], rest))


@pytest.mark.parametrize(("batch", "host", "hosts"), [(21, 0, 1), (40, 3, 4), (4096, 1, 2)])
def test_batches_across_the_spans_that_are_looked_up_together(batch, host, hosts):
    rows = {"web": 10_000, "aligned": 500}
    plan = Plan(BasePlan(parse_shares("web:1"), rows, 9001, seed=1), (Replace("aligned", "0.05", 2),), rows)
    stores = {name: FakeStore(number, count) for number, (name, count) in enumerate(rows.items())}
    steps, part = 9001 // batch, batch // hosts
    for step, got in enumerate(load_batches(plan, stores, batch, 0, steps, host, hosts)):
        there = plan.lookup(step * batch + host * part + np.arange(part))
        assert np.array_equal(got.tokens[:, 0], there.store * 10_000 + there.row)
    assert step == steps - 1


def test_a_dropped_iterator_ends_its_threads():
    before = set(threading.enumerate())
    batches = load_batches(PLAN, STORES, 24, 0, 10, workers=3)
    next(batches)
    mine = [thread for thread in threading.enumerate() if thread not in before]
    assert mine
    batches.close()
    for thread in mine:
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_a_failing_read_reaches_the_caller():
    class Broken(FakeStore):
        def read(self, indices):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(load_batches(PLAN, STORES | {"web": Broken(0, 300)}, 24, 0, 10))


@pytest.mark.parametrize(
    ("stores", "batch", "stop", "hosts", "parts"),
    [
        (STORES, 24, 11, 1, ["steps 0 to 11", "240 slots", "10 steps"]),
        (STORES, 24, 10, 5, ["24 rows", "5 equal parts", "batch_rows"]),
        ({"web": STORES["web"]}, 24, 10, 1, ["'aligned'", "not there"]),
        (STORES | {"web": FakeStore(0, 299)}, 24, 10, 1, ["'web'", "299 rows", "300 were planned"]),
        (STORES | {"web": FakeStore(0, 300, "other")}, 24, 10, 1, ["'web'", "other", "'aligned'", "abc"]),
        (STORES | {"web": FakeStore(0, 300, length=16)}, 24, 10, 1, ["'web'", "16 tokens a row", "'aligned'"]),
    ],
)
def test_mistakes_are_named_before_the_first_batch(stores, batch, stop, hosts, parts):
    with pytest.raises(UserError) as error:
        load_batches(PLAN, stores, batch, 0, stop, 0, hosts)
    for part in parts:
        assert part in str(error.value)


def test_stores_that_the_plan_does_not_use_need_not_be_there():
    plan = Plan(PLAN.base, (Replace("aligned", 0, 2),), ROWS)
    assert len(list(load_batches(plan, {"web": STORES["web"]}, 24, 0, 10))) == 10


def test_columns_come_along_where_a_store_has_them():
    class Masked(FakeStore):
        def read(self, indices):
            rows = super().read(indices)
            scores = np.full(rows.tokens.shape, 0.5, np.float32)
            return SimpleNamespace(tokens=rows.tokens, segments=rows.segments, mask=rows.tokens % 2 == 0, scores=scores)

    masked = Masked(1, 20)
    masked.header.columns = (("tokens", "<u2"), ("mask", "|u1"), ("scores", "<f4"))
    (plain,), (batch,) = (
        list(load_batches(PLAN, stores, 240, 0, 1)) for stores in (STORES, STORES | {"aligned": masked})
    )
    assert plain.mask is plain.scores is plain.side is batch.side is None
    assert len(jax.tree.leaves(plain)) == 3
    assert np.array_equal(batch.mask, (batch.stores == 0)[:, None] | (batch.tokens % 2 == 0))
    assert batch.mask.dtype == bool
    assert np.array_equal(batch.scores, np.broadcast_to(batch.stores[:, None] * np.float32(0.5), batch.tokens.shape))


def test_pairs_and_other_rows_do_not_mix():
    pairs = FakeStore(1, 20)
    pairs.header.columns = (("tokens", "<u2"), ("mask", "|u1"), ("side", "|i1"))
    with pytest.raises(UserError, match="'aligned' holds pairs of answers and 'web' does not"):
        load_batches(PLAN, STORES | {"aligned": pairs}, 24, 0, 10)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2, 3, 6]), st.integers(0, 9), st.integers(0, 4), st.integers(1, 9))
def test_workers_and_prefetch_do_not_matter(hosts, start, workers, prefetch):
    settings = {"workers": workers, "prefetch": prefetch}
    for host in range(hosts):
        one = load_batches(PLAN, STORES, 24, start, 10, host, hosts, **settings)
        other = load_batches(PLAN, STORES, 24, start, 10, host, hosts, workers=0)
        for a, b in itertools.zip_longest(one, other):
            assert np.array_equal(a.tokens, b.tokens)
