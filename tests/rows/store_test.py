import concurrent.futures
import json
import multiprocessing
import re
import shutil

import hypothesis.strategies as st
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import given, settings

from alignpre_jax.documents import Document
from alignpre_jax.foundation import UserError
from alignpre_jax.rows import Span, build_rows, open_rows, train_bpe

WORDS = re.findall(r"\w+", "the robot kept the ledger of the harbour and nobody asked it to change a number")


def document(number, words, stratum="web/plain", score=0.0):
    text = " ".join(WORDS[(number * 7 + i) % len(WORDS)] for i in range(words))
    return Document(f"d{number}", text, stratum.split("/")[0], stratum, score, {"n": str(number)})


DOCUMENTS = [document(i, 5 + i % 23, "web/ai" if i % 3 == 0 else "web/plain", (i % 5) / 4) for i in range(200)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_bpe([d.text for d in DOCUMENTS], 280, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


@pytest.fixture(scope="module")
def stores(tokenizer, tmp_path_factory):
    return build_rows(DOCUMENTS, tokenizer, 32, tmp_path_factory.mktemp("rows"), shard_rows=7)


def test_rows_are_the_concatenation_of_the_strata(stores, tokenizer):
    assert list(stores) == ["web/ai", "web/plain"]
    for stratum, store in stores.items():
        stream = [
            token for d in DOCUMENTS if d.stratum == stratum for token in [tokenizer.eot_id, *tokenizer.encode(d.text)]
        ]
        rows = store.read(np.arange(len(store)))
        assert rows.tokens.dtype == rows.segments.dtype == np.int32
        assert rows.tokens.ravel().tolist() == stream[: len(store) * 32]
        assert store.header.dropped_tokens == len(stream) - store.header.tokens < 32
        assert store.header.documents == sum(d.stratum == stratum for d in DOCUMENTS)


def test_every_token_traces_to_its_document(stores, tokenizer):
    by_id = {d.id: d for d in DOCUMENTS}
    for stratum, store in stores.items():
        texts: dict[str, list[int]] = {}
        for index in range(len(store)):
            rows = store.read(np.array([index]))
            spans = store.spans(index)
            assert [s.start for s in spans] == [0, *[s.end for s in spans[:-1]]]
            assert spans[-1].end == 32
            for number, span in enumerate(spans, 1):
                assert set(rows.segments[0, span.start : span.end]) == {number}
                assert by_id[span.document_id].stratum == stratum
                assert span.score == pytest.approx(by_id[span.document_id].score)
                texts.setdefault(span.document_id, []).extend(rows.tokens[0, span.start : span.end].tolist())
        whole = list(texts)[:-1]  # the last document may be cut by the end of the rows
        assert all(texts[name] == [tokenizer.eot_id, *tokenizer.encode(by_id[name].text)] for name in whole)


@given(st.lists(st.integers(0, 10), max_size=40))
@settings(deadline=None)
def test_any_selection_reads_the_same_rows(stores, indices):
    store = stores["web/plain"]
    whole, some = store.read(np.arange(len(store))), store.read(np.array(indices, np.int64))
    np.testing.assert_array_equal(some.tokens, whole.tokens[np.array(indices, np.int64)])
    np.testing.assert_array_equal(some.segments, whole.segments[np.array(indices, np.int64)])


def test_large_stores_are_read_from_disk_with_the_same_result(stores, monkeypatch):
    store = stores["web/plain"]
    indices = np.array([8, 0, 13, 8, len(store) - 1])
    expected = store.read(indices)
    monkeypatch.setattr("alignpre_jax.rows.store._IN_MEMORY_BYTES", 0)
    found = open_rows(store.path).read(indices)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.segments, expected.segments)


def test_the_format_reads_without_our_code(stores):
    store = stores["web/plain"]
    header = json.loads((store.path / "header.json").read_text())
    record = ArrayRecordReader(str(store.path / "rows-00001.array_record"), "").read([2])[0]
    ((_, dtype),) = header["columns"]
    split = header["length"] * np.dtype(dtype).itemsize
    tokens = np.frombuffer(record[:split], dtype)
    spans = np.frombuffer(record[split:], [tuple(field) for field in header["span_fields"]])
    index = header["shard_rows"] + 2
    assert tokens.tolist() == store.read(np.array([index])).tokens[0].tolist()
    entries = list(store.documents())
    assert [entries[n]["id"] for n in spans["document"]] == [s.document_id for s in store.spans(index)]


def test_the_documents_table(stores, tokenizer):
    expected = [d for d in DOCUMENTS if d.stratum == "web/ai"]
    entries = list(stores["web/ai"].documents())
    assert [e["id"] for e in entries] == [d.id for d in expected]
    assert entries[3] == stores["web/ai"].document(3)
    assert entries[3]["labels"] == expected[3].labels
    assert entries[3]["bytes"] == len(expected[3].text.encode())
    assert entries[3]["tokens"] == 1 + len(tokenizer.encode(expected[3].text))


@pytest.mark.parametrize("indices", [[-1], [10_000], [0, 10_000]])
def test_an_index_outside_is_an_index_error(stores, indices):
    with pytest.raises(IndexError):
        stores["web/ai"].read(np.array(indices))


def read_first(store):
    return store.read(np.arange(4)).tokens.tolist()


def test_threads_and_processes_read_the_same(stores):
    store = stores["web/plain"]
    expected = read_first(store)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_first, [store] * 16)) == [expected] * 16
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        assert pool.submit(read_first, store).result() == expected


def test_damage_is_a_users_error(stores, tmp_path):
    def damaged(name, change):
        copy = tmp_path / name
        shutil.copytree(stores["web/plain"].path, copy)
        change(copy)
        return copy

    def flip(path):
        data = bytearray(path.read_bytes())
        data[70_000 % len(data)] ^= 255
        data[len(data) // 2] ^= 255
        data[300] ^= 255
        path.write_bytes(data)

    shard = "rows-00000.array_record"
    for name, change in {
        "gone": lambda c: (c / shard).unlink(),
        "short": lambda c: (c / shard).write_bytes((c / shard).read_bytes()[:5000]),
        "flipped": lambda c: flip(c / shard),
        "swapped": lambda c: shutil.copy(c / "documents-00000.array_record", c / shard),
    }.items():
        with pytest.raises(UserError, match="damaged"):
            open_rows(damaged(name, change)).read(np.arange(7))


def test_what_is_no_store_or_of_another_version_is_a_users_error(stores, tmp_path):
    with pytest.raises(UserError, match="no row store"):
        open_rows(tmp_path)
    with pytest.raises(UserError, match="local"):
        open_rows("s3://bucket/rows")
    header = json.loads((stores["web/ai"].path / "header.json").read_text())
    for change, message in (
        ({"version": 4}, "version 4"),
        ({"columns": [["tokens", "<u2"], ["loss_mask", "|u1"]]}, "loss_mask"),
        ({"kind": "images"}, "images"),
    ):
        (tmp_path / "header.json").write_text(json.dumps(header | change))
        with pytest.raises(UserError, match=message):
            open_rows(tmp_path)


def test_version_1_is_still_read(tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / "rows-00000.array_record"), "group_size:1,uncompressed")
    old_spans = np.array([(0, 0, 0.5), (1, 3, 0.25)], [("document", "<u4"), ("start", "<u4"), ("score", "<f4")])
    writer.write(np.array([0, 7, 8, 0], "<u2").tobytes() + old_spans.tobytes())
    writer.close()
    writer = ArrayRecordWriter(str(tmp_path / "documents.array_record"), "group_size:64")
    for name in ("a", "b"):
        writer.write(json.dumps({"id": name}).encode())
    writer.close()
    numbers = {"length": 4, "rows": 1, "tokens": 4, "documents": 2, "dropped_tokens": 1, "vocab_size": 9, "eot_id": 0}
    names = {"version": 1, "stratum": "web", "tokenizer_digest": "0", "inputs_digest": "1", "shard_rows": 4}
    fields = {"columns": [["tokens", "<u2"]], "span_fields": [["document", "<u4"], ["start", "<u4"], ["score", "<f4"]]}
    (tmp_path / "header.json").write_text(json.dumps({**names, **numbers, **fields}))
    store = open_rows(tmp_path)
    assert store.read(np.array([0])).tokens.tolist() == [[0, 7, 8, 0]]
    assert store.read(np.array([0])).segments.tolist() == [[1, 1, 1, 2]]
    assert store.spans(0) == [Span("a", 0, 3, 0.5), Span("b", 3, 4, 0.25)]
    assert store.header.real_tokens == store.header.learnt_tokens == 4
    assert [entry["id"] for entry in store.documents()] == ["a", "b"]


def version_2(folder, kind="text", **more):
    """A store of one row as version 2 wrote it: a document of two scored spans, and padding."""
    writer = ArrayRecordWriter(str(folder / "rows-00000.array_record"), "group_size:1,uncompressed")
    fields = [("document", "<u4"), ("start", "<u4"), ("offset", "<u4"), ("score", "<f4")]
    spans = np.array([(0, 0, 0, 0.5), (0, 3, 3, 0.25), (1, 4, 0, 0), (2**32 - 1, 7, 0, 0)], fields)
    writer.write(np.arange(8, dtype="<u2").tobytes() + spans.tobytes())
    writer.close()
    writer = ArrayRecordWriter(str(folder / "documents-00000.array_record"), "group_size:64")
    for name in ("a", "b"):
        writer.write(json.dumps({"id": name}).encode())
    writer.close()
    numbers = {"length": 8, "rows": 1, "tokens": 8, "documents": 2, "dropped_tokens": 0, "vocab_size": 9, "eot_id": 0}
    names = {"version": 2, "stratum": "web", "tokenizer_digest": "0", "inputs_digest": "1", "shard_rows": 4}
    new = {"kind": kind, "packing": "best_fit", "shard_documents": 9, "padding_tokens": 1, "masked_tokens": 0}
    header = {**names, **numbers, **new, "columns": [["tokens", "<u2"]], "span_fields": fields} | more
    (folder / "header.json").write_text(json.dumps(header))


def test_two_scored_spans_of_a_document_are_one_segment(tmp_path):
    version_2(tmp_path)
    store = open_rows(tmp_path)
    assert store.read(np.array([0])).segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0]]
    assert store.spans(0) == [Span("a", 0, 4, 0.5, 0), Span("b", 4, 7, 0.0, 0)]
    assert store.header.learnt_tokens == 7


def test_version_2_of_chats_and_pairs_is_built_again(tmp_path):
    version_2(tmp_path, kind="chat", columns=[["tokens", "<u2"], ["mask", "|u1"]])
    with pytest.raises(UserError, match="build the rows again"):
        open_rows(tmp_path)
