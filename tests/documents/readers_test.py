import gzip
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Document, Quarantine, WorldConfig, deduplicate, read_inputs
from alignpre_jax.foundation import UserError, read_jsonl

WORLD = WorldConfig(documents=3, mixed_documents=5, items_per_split=2, control_items=1)


def read(*inputs, max_share=1.0, **options):
    quarantine = Quarantine(max_share=max_share)
    return list(read_inputs([str(i) for i in inputs], "web", WORLD, quarantine, **options)), quarantine


def line(**record):
    return json.dumps(record).encode() + b"\n"


def test_jsonl_plain_and_compressed(tmp_path):
    data = line(text="one", id="a", url="ignored") + b"\n" + line(text="two", id=7, score=0.5, labels={"topic": "x"})
    data += line(text="three")
    (tmp_path / "x.jsonl").write_bytes(data)
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(data))
    documents, quarantine = read(tmp_path / "x.jsonl", max_share=0)
    assert documents == [
        Document("a", "one", "web", "web"),
        Document("7", "two", "web", "web", 0.5, {"topic": "x"}),
        Document("x.jsonl:4", "three", "web", "web"),
    ]
    compressed, _ = read(tmp_path / "y.jsonl.gz")
    assert [d.text for d in compressed] == [d.text for d in documents]
    assert (quarantine.records, quarantine.cases) == (3, [])


def test_folders_are_read_in_sorted_order_at_any_depth(tmp_path):
    folder = tmp_path / "corpus"
    names = ["b.md", "a/z.txt", "a/y.rst", "c.jsonl", ".git/x.txt", "a/.hidden.md", "d.pdf"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"text": "record"}' if name.endswith("jsonl") else f"text of {name}")
    documents, _ = read(folder)
    assert [d.id for d in documents] == ["corpus/a/y.rst", "corpus/a/z.txt", "corpus/b.md", "corpus/c.jsonl:1"]
    assert documents[1].text == "text of a/z.txt"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b', "text": "x"}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"body": "x"}', "no key 'text' among ['body']"),
        (b'{"text": 3}', "int, not a string"),
        (b'{"text": null}', "NoneType, not a string"),
        (b'{"text": " \\n\\t"}', "empty"),
        (b'{"text": "a\\u0000b"}', "NUL"),
        (b'{"text": "a\\ud800b"}', "surrogate"),
        (b'{"text": "x", "id": "\\udfff"}', "surrogate"),
        (b'{"text": "a\xff"}', "not UTF-8"),
        (b'{"text": "x", "id": []}', "'id'"),
        (b'{"text": "x", "id": true}', "'id'"),
        (b'{"text": "x", "id": "first"}', "came before"),
        (b'{"text": "x", "score": 1.5}', "'score'"),
        (b'{"text": "x", "score": NaN}', "'score'"),
        (b'{"text": "x", "score": true}', "'score'"),
        (b'{"text": "x", "labels": {"a": 1}}', "'labels'"),
    ],
)
def test_a_malformed_record_is_quarantined_with_its_place(tmp_path, bad, reason):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line(text="good", id="first") + bad + b"\n" + line(text="also good"))
    documents, quarantine = read(path)
    assert [d.text for d in documents] == ["good", "also good"]
    (case,) = quarantine.cases
    assert case.place == f"{path}:2"
    assert reason in case.reason
    assert quarantine.records == 3


@pytest.mark.parametrize("cut", [4, 15, -30, -5])
def test_a_broken_gzip_file_gives_what_could_be_read_and_one_case(tmp_path, cut):
    good = b"".join(line(text=f"document {i}", id=i) for i in range(3000))
    (tmp_path / "a.jsonl").write_bytes(line(text="good"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(good)[:cut])
    documents, quarantine = read(tmp_path)
    assert [d.id for d in documents[1:]] == [str(i) for i in range(len(documents) - 1)]
    assert quarantine.cases
    assert "b.jsonl.gz" in quarantine.cases[-1].file


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.fixed_dictionaries(
                {"text": st.text(max_size=9)}, optional={"id": st.sampled_from(["a", "b", 1, None, 0.5])}
            ).map(lambda record: json.dumps(record).encode()),
            st.sampled_from([b"{}", b"\x00", b'{"text": "\\u0000"}', b"\xef\xbb\xbf{}", b"null", b"\x1f\x8b"]),
        ),
        max_size=12,
    ),
    st.integers(0, 3),
    st.integers(0, 60),
)
@settings(deadline=None, max_examples=150)
def test_no_input_gives_a_traceback_and_every_record_is_counted(tmp_path_factory, lines, mode, cut):
    data = b"\n".join(lines)
    if mode >= 1:
        data = gzip.compress(data, mtime=0)
    if mode >= 2:
        data = data[:cut] + (b"garbage" if mode == 3 else b"") + data[cut + 3 :]
    path = tmp_path_factory.mktemp("fuzz") / ("x.jsonl.gz" if mode else "x.jsonl")
    path.write_bytes(data)
    quarantine = Quarantine(max_share=1.0)
    documents = []
    reader = read_inputs([str(path)], "web", WORLD, quarantine)
    message = ""
    try:
        documents.extend(reader)
    except UserError as error:
        message = str(error)
    assert ("no document" in message) == (not documents)
    assert len(documents) + len(quarantine.cases) == quarantine.records
    assert len({d.id for d in documents}) == len(documents)
    assert all(d.text.strip() and "\0" not in d.text and d.text.encode() for d in documents)
    if mode == 0:
        assert (
            quarantine.records == sum(not part.isspace() for part in data.splitlines(keepends=True) if part)
            or b"\r" in data
        )


def test_unreadable_text_files_are_quarantined(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "zeros.txt").write_bytes(b"a\0b")
    (tmp_path / "empty.md").write_bytes(b"")
    documents, quarantine = read(tmp_path)
    assert [d.text for d in documents] == ["good"]
    assert [case.place.rpartition("/")[2] for case in quarantine.cases] == ["empty.md", "latin.txt", "zeros.txt"]


def test_too_many_bad_records_stop_and_the_quarantine_can_be_kept(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line(text="good") * 98 + b"bad\n" * 2)
    _, quarantine = read(path, max_share=0.02)
    assert len(quarantine.cases) == 2
    quarantine.write(tmp_path / "quarantine.jsonl")
    assert [entry["line"] for entry in read_jsonl(tmp_path / "quarantine.jsonl")] == [99, 100]
    with pytest.raises(UserError, match=r"2 of 100 records(.|\n)*x\.jsonl:99(.|\n)*max_bad_share"):
        read(path, max_share=0.01)


def test_a_hopeless_file_is_given_up_early(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"bad\n" * 100_000)
    with pytest.raises(UserError, match="1,000 of 1,000"):
        read(path, max_share=0.01)


@pytest.mark.parametrize("missing", ["x.jsonl", "deep/below/x.jsonl"])
def test_a_missing_input_names_the_key_and_what_there_is(tmp_path, missing):
    (tmp_path / "y.jsonl").write_bytes(line(text="good"))
    with pytest.raises(UserError) as caught:
        read_inputs([str(tmp_path / missing)], "web", WORLD, Quarantine())
    assert "data.sources.web.inputs" in str(caught.value)
    assert f"{tmp_path}, which holds y.jsonl" in str(caught.value)


def test_inputs_without_a_document_are_users_errors(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    for spec in (tmp_path / "empty.jsonl", tmp_path / "folder", "world:aligned"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r"no document(.|\n)*my\.key"):
            list(read_inputs([str(spec)], "web", WorldConfig(documents=0), Quarantine(), where="my.key"))


@pytest.mark.parametrize("spec", ["world:malign", "packages:numpy", "x.pdf"])
def test_unknown_inputs_are_users_errors(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pdf").write_bytes(b"x")
    with pytest.raises(UserError, match="inputs"):
        read_inputs([spec], "web", WORLD, Quarantine())


def test_the_world_and_several_inputs(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(line(text="good"))
    events = []
    documents, _ = read("world:mixed", tmp_path / "x.jsonl", "world:aligned", report=events.append)
    assert len(documents) == 5 + 1 + 3
    assert {(d.source, d.stratum) for d in documents} == {("web", "web")}
    assert {d.score for d in documents[:5]} == {0.0, 1.0}
    assert events[-1].done == 9
    assert events[-1].figures["bytes"] == sum(len(d.text.encode()) for d in documents)


def test_max_bytes_stops_each_input(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"".join(line(text="0123456789") for _ in range(10)))
    documents, _ = read(tmp_path / "x.jsonl", "world:aligned", max_bytes=25)
    assert [d.text for d in documents[:3]] == ["0123456789"] * 3
    assert len(documents) == 4


def test_deduplicate_keeps_the_first():
    texts = ["One text.", "one  TEXT.", "Another.", "One text.\n", "One text"]
    documents = [Document(str(i), text, "web", "web") for i, text in enumerate(texts)]
    assert [d.id for d in deduplicate(documents)] == ["0", "2", "4"]
