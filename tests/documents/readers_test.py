import gzip
import json
import pickle
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import (
    Document,
    Quarantine,
    ReadConfig,
    RecordKeys,
    WorldConfig,
    deduplicate,
    drop_taken_ids,
    list_files,
    read_file,
    read_inputs,
)
from alignpre_jax.documents.hashset import TextSet
from alignpre_jax.documents.readers import records
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
        (b'{"text": "x", "id": "first"}', "came before"),
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


@given(st.lists(st.integers(0, 40).map(str)), st.integers(1, 3000))
@settings(deadline=None, max_examples=30)
def test_a_text_set_is_a_set(texts, many):
    texts = texts + [f"{i % (2 * many // 3 + 1)}" for i in range(many)]
    ours, theirs = TextSet(), set()
    for text in texts:
        assert ours.add(text) == (text not in theirs)
        theirs.add(text)
    assert len(ours) == len(theirs)


def test_patterns_name_files_below_their_last_plain_folder(tmp_path, monkeypatch):
    for name in ("a/part-0.jsonl", "a/part-1.jsonl", "b/part-0.jsonl", "b/other.txt", "b/part-2.pdf", "part-9.jsonl"):
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(json.dumps({"text": name}))
    expected = ["corpus/a/part-0.jsonl:1", "corpus/a/part-1.jsonl:1", "corpus/b/part-0.jsonl:1"]
    assert [d.id for d in read(tmp_path / "corpus" / "*" / "*.jsonl")[0]] == expected
    assert [d.id for d in read(tmp_path / "corpus" / "[ab]" / "part-?.jsonl")[0]] == expected
    monkeypatch.chdir(tmp_path / "corpus")
    assert [d.id for d in read("*/part-0.jsonl")[0]] == expected[::2]
    assert [d.id for d in read("[b]")[0]] == ["corpus/b/other.txt", "corpus/b/part-0.jsonl:1"]
    for pattern, message in [("*.csv", "nothing matches"), ("b/*", "unknown kind"), ("**/*.jsonl", "any depth")]:
        with pytest.raises(UserError, match=message):
            read(pattern)


def test_files_of_one_name_have_documents_of_different_ids(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_bytes(line(text=folder))
    documents, _ = read(tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl")
    assert [d.id for d in documents] == [f"{tmp_path}/{folder}/x.jsonl:1" for folder in "ab"]
    with pytest.raises(UserError, match="named twice, by"):
        read(tmp_path / "a", tmp_path / "?" / "x.jsonl")


def test_other_names_for_the_parts_of_a_record(tmp_path):
    row = {"content": "words", "url": "u1", "harm": 0.25, "meta": {"a": "b"}, "text": 3}
    (tmp_path / "x.jsonl").write_bytes(line(**row))
    documents, _ = read(tmp_path, keys=RecordKeys("content", "url", "harm", "meta"))
    assert documents == [Document("u1", "words", "web", "web", 0.25, {"a": "b"})]
    with pytest.raises(UserError, match="no key 'body'"):
        read(tmp_path / "x.jsonl", keys=RecordKeys("body"))


def test_files_of_other_kinds_are_told(tmp_path):
    for name in ("x.txt", "a.pdf", "b.pdf", "README"):
        (tmp_path / name).write_text("text")
    events = []
    read(tmp_path, report=events.append)
    assert "2 .pdf, 1 README" in events[0].note


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "x.txt").write_text("text")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "loop").symlink_to(tmp_path / "corpus")
    assert [d.id for d in read(tmp_path / "corpus")[0]] == ["corpus/link/deep/x.txt"]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_files_read_apart_give_what_they_give_together(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("apart")
    for number, ids in enumerate(files):
        data = b"".join(line(text=f"{number} {i}", id=i) if i else b"bad\n" for i in ids)
        (folder / f"{number}.jsonl").write_bytes(data + line(text=f"last of {number}"))
    together, counted = read(folder)
    config, merged, parts = ReadConfig("web", world=WORLD), Quarantine(max_share=1.0), []
    for file in list_files([str(folder)]):
        own = Quarantine(max_share=1.0)
        part = list(read_file(file, config, own))
        file, part, own = pickle.loads(pickle.dumps((file, part, own)))  # as from another process
        merged.absorb(own)
        parts.append((file, part))
    assert list(drop_taken_ids(parts, TextSet(), merged)) == together
    assert (merged.records, merged.bad) == (counted.records, counted.bad)
    assert {(case.file, case.line) for case in merged} == {(case.file, case.line) for case in counted}


def test_the_faster_parser_gives_the_same(tmp_path, monkeypatch):
    pytest.importorskip("orjson")
    values = [b"NaN", b"1e999", b"-0", b"18446744073709551615", b"18446744073709551616", b'"\\ud800"', b'"\xff"', b"[]"]
    keys = [b"text", b"id", b"score", b"labels", b"other"]
    lines = [b'{"text": "x", "' + key + b'": ' + value + b"}" for key in keys for value in [*values, b"0.5", b'"y"']]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([*lines, b"\xef\xbb\xbf{}", b'{"text": "tab\there"}', b"[" * 2000]))
    fast, fast_quarantine = read(tmp_path)
    monkeypatch.setattr(records, "_fast_loads", None)
    slow, slow_quarantine = read(tmp_path)
    assert fast == slow
    assert [case.line for case in fast_quarantine] == [case.line for case in slow_quarantine]


@pytest.fixture
def bucket(monkeypatch):
    """A file system in memory behind gs://."""
    fsspec = pytest.importorskip("fsspec")
    from etils.epath import backend, gpath
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store: ClassVar[dict] = {}
        pseudo_dirs: ClassVar[list] = [""]
        reads: ClassVar[list] = []

        @classmethod
        def _strip_protocol(cls, path):
            return MemoryFileSystem._strip_protocol(path.removeprefix("gs://"))

        def glob(self, path, **options):
            return [name.lstrip("/") for name in super().glob(path, **options)]  # as buckets name them

        def _open(self, path, mode="rb", **options):
            file = super()._open(path, mode, **options)
            if mode == "rb":
                read = file.read
                file.read = lambda size=-1: Bucket.reads.append(size) or read(size)
            return file

    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda self, name: Bucket())
    assert fsspec
    return Bucket


def test_buckets_are_listed_and_streamed(bucket, tmp_path):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "x"), "group_size:1")
    writer.write(b"an array record")
    writer.close()
    data = line(text="words " * 50_000)
    files = {
        "a.jsonl": data * 3,
        "deep/b.jsonl.gz": gzip.compress(data),
        "deep/c.txt": b"text",
        ".hidden/d.txt": b"no",
        "deep/e.array_record": (tmp_path / "x").read_bytes(),
    }
    file_system = bucket()
    for name, content in files.items():
        file_system.pipe_file(f"gs://bucket/corpus/{name}", content)
    documents, quarantine = read("gs://bucket/corpus")
    ids = [d.id for d in documents]
    assert ids == [
        *(f"corpus/a.jsonl:{i}" for i in (1, 2, 3)),
        "corpus/deep/b.jsonl.gz:1",
        "corpus/deep/c.txt",
        "corpus/deep/e.array_record:1",
    ]
    assert not quarantine.bad
    assert [file.bytes for file in list_files(["gs://bucket/corpus/*/*.gz"])] == [len(files["deep/b.jsonl.gz"])]
    assert -1 not in bucket.reads  # no file is read whole, whatever its size
    with pytest.raises(UserError, match=r"there is no 'gs://bucket/nothing.jsonl'"):
        read("gs://bucket/nothing.jsonl")


def test_a_bucket_without_its_package_is_a_users_error(monkeypatch):
    from etils.epath import backend

    def missing(self, name):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", missing)
    with pytest.raises(UserError, match="gcsfs"):
        read("gs://bucket/x.jsonl")


def test_hugging_face_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {
        "text": ["one", None, "three", "one"],
        "id": ["a", "b", None, "a"],
        "score": [0.0, 1.0, 1.0, 0.0],
        "n": [1] * 4,
    }
    folder, saved = tmp_path / "files", tmp_path / "saved"
    folder.mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(folder / "train.parquet")
    datasets.Dataset.from_dict({"text": ["a test"]}).to_parquet(folder / "test.parquet")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(saved)
    for path in (folder, saved):
        documents, quarantine = read(f"hf:{path}")
        assert [(d.id, d.text, d.score) for d in documents] == [("a", "one", 0.0), (f"hf:{path}:3", "three", 1.0)]
        assert [case.line for case in quarantine] == [2, 4]
    for split, message in [("validation", "validation"), ("train", "'body'")]:
        with pytest.raises(UserError, match=message):
            read(f"hf:{folder}::{split}", keys=RecordKeys("body") if split == "train" else None)
    with pytest.raises(UserError, match="cannot be opened"):
        read(f"hf:{tmp_path / 'nothing'}")


def test_no_code_of_a_dataset_is_run(tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "trap"
    folder.mkdir()
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    with pytest.raises(UserError):
        read(f"hf:{folder}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("spec", ["hf:", "hf::config", "hf:a:b:c:d"])
def test_unknown_datasets_are_users_errors(spec):
    with pytest.raises(UserError, match="hf:NAME"):
        read(spec)
