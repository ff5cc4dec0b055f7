"""Rows at gs://, read by the real client libraries from a bucket on the loopback."""

import concurrent.futures
import json
import multiprocessing
from itertools import count

import fake_gcs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.documents import Document
from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import BasePlan, Plan, load_batches, parse_shares
from alignpre_jax.rows import build_rows, gcs, open_rows, publish_rows, train_bpe

FOLDERS = count()
DOCUMENTS = [Document(f"d{n}", f"the robot of harbour {n} kept ledger {n * n}. " * 3, "web", "web") for n in range(120)]


@pytest.fixture(scope="module")
def bucket():
    with fake_gcs.serve() as found:
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    tokenizer = train_bpe([document.text for document in DOCUMENTS], 280, folder / "tokenizer.json")
    return build_rows(DOCUMENTS, tokenizer, 32, folder, shard_rows=50)["web"]


@pytest.fixture(scope="module")
def published(bucket, store):
    return publish_rows(store, "gs://bucket/rows/32/web")


def same(a, b):
    return np.array_equal(a.tokens, b.tokens) and np.array_equal(a.segments, b.segments)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_rows_are_those_of_the_store(store, published, data):
    indices = np.array(data.draw(st.lists(st.integers(0, len(store) - 1), max_size=12)), np.int64)
    assert published.header == store.header
    assert same(published.read(indices), store.read(indices))


def test_documents_and_spans_too(store, published):
    assert published.spans(7) == store.spans(7)
    assert list(published.documents()) == list(store.documents())


def _read_elsewhere(store, indices):
    return store.read(indices).tokens.tolist()


def test_threads_and_processes_read_it(store, published):
    wanted = np.arange(len(store))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for part, found in zip(
            np.array_split(wanted, 4), pool.map(published.read, np.array_split(wanted, 4)), strict=True
        ):
            assert same(found, store.read(part))
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(_read_elsewhere, published, wanted[:5]).result()
    assert found == store.read(wanted[:5]).tokens.tolist()


def test_each_host_reads_its_own_slice_and_nothing_else(bucket, store, published):
    rows = {"web": len(store)}
    plan = Plan(BasePlan(parse_shares("web:1"), rows, 24, seed=3), (), rows)
    whole = np.concatenate([batch.tokens for batch in load_batches(plan, {"web": store}, 8, 0, 3)])
    parts = []
    for host in range(2):
        mine = open_rows(published.path)
        mine.read(np.arange(0, len(mine), 50))  # the files are open
        bucket.requests.clear()
        batches = list(load_batches(plan, {"web": mine}, 8, 0, 3, host=host, hosts=2))
        parts.append(np.stack([batch.tokens for batch in batches]))
        assert sum(bucket.count("GET").values()) == 12  # 3 steps of 4 rows
    assert np.array_equal(np.concatenate(parts, axis=1).reshape(whole.shape), whole)


def test_a_copy_that_is_there_is_kept_and_one_that_was_broken_off_made_whole(bucket, store):
    url = f"gs://bucket/{next(FOLDERS)}"
    for part in ("documents-", "rows-00002", "header"):
        bucket.broken = part
        with pytest.raises(UserError, match=r"cannot be reached.*403"):
            publish_rows(store, url)
    with pytest.raises(UserError, match="no row store here"):
        open_rows(url)
    bucket.broken = ""
    assert same(publish_rows(store, url).read(np.arange(9)), store.read(np.arange(9)))
    bucket.requests.clear()
    publish_rows(store, url)
    assert not bucket.count("POST")


def test_other_rows_are_not_overwritten(bucket, store, published):
    name = "bucket/other/header.json"
    header = json.loads((store.path / "header.json").read_text()) | {"inputs_digest": "another"}
    bucket.objects[name] = json.dumps(header).encode()
    with pytest.raises(UserError, match="other rows"):
        publish_rows(store, "gs://bucket/other")
    assert json.loads(bucket.objects[name])["inputs_digest"] == "another"
    bucket.objects[name] = b"{"
    with pytest.raises(UserError, match="not valid JSON"):
        open_rows("gs://bucket/other")


def test_a_bucket_that_refuses_or_is_silent_is_a_users_error(bucket, published, monkeypatch):
    bucket.refused = True
    try:
        with pytest.raises(UserError, match=r"cannot be reached.*403"):
            open_rows("gs://bucket/rows/32/web")
    finally:
        bucket.refused = False
    monkeypatch.setattr(gcs, "PATIENCE", 0.2)
    silent = _Silent()
    monkeypatch.setattr(gcs, "_open", lambda url: silent)
    with pytest.raises(UserError, match="no answer within 0"):
        open_rows("gs://bucket/rows/32/web")


class _Silent:
    def __init__(self):
        import tensorstore

        self._promise, self._future = tensorstore.Promise.new()

    def read(self, _):
        return self._future


def test_a_damaged_or_missing_shard_is_told(bucket, store, published):
    url = f"gs://bucket/{next(FOLDERS)}"
    publish_rows(store, url)
    del bucket.objects[f"{url.removeprefix('gs://')}/rows-00001.array_record"]
    with pytest.raises(UserError, match="damaged"):
        open_rows(url).read(np.array([60]))
