"""Odd ids, scores, labels and spans do not cost a document; spans that do not fit it do."""

import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from alignpre_jax.documents import Quarantine, ScoredSpan, WorldConfig, read_inputs
from alignpre_jax.documents.readers import facts, records
from alignpre_jax.documents.readers.keys import MalformedError

TEXT = "Bees build cells."


def read(*inputs, **options):
    quarantine = Quarantine(max_share=1.0)
    return list(read_inputs([str(each) for each in inputs], "web", WorldConfig(), quarantine, **options)), quarantine


def read_lines(tmp_path, *rows):
    (tmp_path / "x.jsonl").write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return read(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("null", "x.jsonl:1"), ("7", "7"), ("7.0", "7"), ("7.5", "7.5"), ('"7.0"', "7.0"), ("true", "x.jsonl:1")),
        *(('""', "x.jsonl:1"), ("[]", "x.jsonl:1"), ("NaN", "x.jsonl:1"), ("1e300", "x.jsonl:1")),
        *(("18446744073709551615",) * 2, ("18446744073709551616", "x.jsonl:1"), ("-9" + "9" * 400, "x.jsonl:1")),
    ],
)
def test_an_id_that_is_no_use_is_as_good_as_none(tmp_path, monkeypatch, value, expected):
    for _ in range(2):  # with the faster parser, and without it
        documents, quarantine = read_lines(tmp_path, f'{{"text": "{TEXT}", "id": {value}}}')
        assert [d.id for d in documents] == [expected]
        assert not quarantine.bad
        monkeypatch.setattr(records, "_fast_loads", None)


def test_ids_that_a_table_keeps_as_floats_are_whole_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for name, ids in (("a", pa.array([7.0, None])), ("b", pa.array([8, None], pa.int64()))):
        pq.write_table(pa.table({"text": ["one", "two"], "id": ids}), tmp_path / f"{name}.parquet")
    documents, quarantine = read(tmp_path)
    folder = tmp_path.name
    assert [d.id for d in documents] == ["7", f"{folder}/a.parquet:2", "8", f"{folder}/b.parquet:2"]
    assert not quarantine.bad


def test_shards_that_count_from_0_each_keep_all_their_documents(tmp_path):
    for shard in range(3):
        rows = [{"id": i, "text": f"Shard {shard}, number {i}."} for i in range(4)]
        rows += [{"id": 1, "text": "its id came before in its own file"}]
        (tmp_path / f"s{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents, quarantine = read(tmp_path)
    names = [f"{tmp_path.name}/s{shard}.jsonl/" for shard in (1, 2)]
    assert [d.id for d in documents] == [f"{name}{i}" for name in ["", *names] for i in range(4)]
    assert [(case.line, "came before" in case.reason) for case in quarantine] == [(5, True)] * 3


@pytest.mark.parametrize(
    ("value", "score", "labels"),
    [
        *(("0.25", 0.25, {}), ("1", 1.0, {}), ("null", 0.0, {}), ("2.5", 0.0, {"score": "2.5"})),
        *(("-0.001", 0.0, {"score": "-0.001"}), ("NaN", 0.0, {"score": "NaN"}), ("true", 0.0, {"score": "true"})),
        *(('"good"', 0.0, {"score": "good"}), ("1e999", 0.0, {"score": "Infinity"})),
    ],
)
def test_a_score_of_something_else_is_a_label(tmp_path, value, score, labels):
    (document,), _ = read_lines(tmp_path, f'{{"text": "{TEXT}", "score": {value}}}')
    assert (document.score, document.labels) == (score, labels)


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (None, {}),
        ({"a": 1, "b": None, "c": "d", "e": [1, 2.5]}, {"a": "1", "c": "d", "e": "[1, 2.5]"}),
        (3, {"labels": "3"}),
        (["x", "y"], {"labels": '["x", "y"]'}),
        ({"score": "kept"}, {"score": "kept"}),
    ],
)
def test_labels_of_any_shape_are_strings(tmp_path, value, labels):
    (document,), _ = read_lines(
        tmp_path, {"text": TEXT, "labels": value, "score": None if value != {"score": "kept"} else 9}
    )
    assert document.labels == labels


def test_a_long_label_that_is_no_string_is_cut():
    assert len(facts.read_labels(list(range(1000)), "labels")["labels"]) == 200


def test_spans_come_along_in_their_order(tmp_path):
    rows = [[10, 16, 0.5, "act"], [0, 4, 1], {"start": 5, "end": 10, "score": -1.0, "label": None}]
    (document,), _ = read_lines(tmp_path, {"text": TEXT, "spans": rows})
    assert document.spans == (ScoredSpan(0, 4, 1.0), ScoredSpan(5, 10, -1.0), ScoredSpan(10, 16, 0.5, "act"))


@pytest.mark.parametrize("value", [3, "x", [3], [["a", "b", "c"]], [[1, 2]], [{"start": 1, "end": 2}], [[1, 2, 3, 4]]])
def test_spans_of_another_task_are_not_read_and_a_label_says_so(tmp_path, value):
    (document,), quarantine = read_lines(tmp_path, {"text": TEXT, "spans": value})
    assert (document.spans, set(document.labels)) == ((), {"spans"})
    assert not quarantine.bad


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([[0, 18, 1.0]], "no part of the text, which has 17 characters"),
        ([[-1, 3, 1.0]], "no part of the text"),
        ([[3, 3, 1.0]], "no part of the text"),
        ([[0, 2.5, 1.0]], "no part of the text"),
        ([[0, 3, math.nan]], "score of spans[0] is nan"),
        ([[0, 3, 1.0], [2, 4, 0.5]], "[0, 3) and [2, 4) of 'spans' overlap"),
    ],
)
def test_spans_that_do_not_fit_the_text_cost_the_document(tmp_path, spans, reason):
    documents, quarantine = read_lines(tmp_path, {"text": "good"}, {"text": TEXT, "spans": spans})
    assert [d.text for d in documents] == ["good"]
    assert reason in quarantine.cases[0].reason


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=8,
)


@given(ANY)
def test_no_value_makes_a_traceback(value):
    assert isinstance(facts.read_id(value), str)
    score, labels = facts.read_score(value, "score")
    labels |= facts.read_labels(value, "labels")
    assert 0 <= score <= 1
    assert all(isinstance(part, str) for item in labels.items() for part in item)
    try:
        facts.read_spans(value, "spans", 10)
    except MalformedError:
        assert value
