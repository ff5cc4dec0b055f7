"""Damaged and hostile inputs: every record is accounted for, and nothing but a UserError comes out."""

import gzip
import json
import os
import pickle
import tracemalloc
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from alignpre_jax.documents import Quarantine, WorldConfig, list_files, read_inputs
from alignpre_jax.documents.readers import streams
from alignpre_jax.foundation import UserError

TEXTS = [f"document {i}: " + "a few words, naïve and plain " * (i % 7) for i in range(60)]
RECORDS = [{"text": text, "id": str(i), "score": (i % 3) / 2} for i, text in enumerate(TEXTS)]
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
KINDS = ["x.txt", "x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.array_record"]
CHECKED = {"x.jsonl.gz", "x.jsonl.zst", "x.array_record"}  # their checksums tell damage from content


def write_array_record(path, records, options="group_size:8"):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()


def write_parquet(path, columns, **options):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, **options)


class Files(dict):
    def __repr__(self):
        return "the valid files"  # not their bytes, in hypothesis' messages


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Files:
    """The bytes of a whole file of each kind, all with the same documents."""
    zstandard = pytest.importorskip("zstandard")
    folder = tmp_path_factory.mktemp("valid")
    columns = {key: [record[key] for record in RECORDS] for key in RECORDS[0]}
    write_parquet(folder / "x.parquet", columns, row_group_size=16, write_page_checksum=True)
    write_array_record(folder / "x.array_record", [json.dumps(record).encode() for record in RECORDS])
    (folder / "x.jsonl.zst").write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(LINES))
    (folder / "x.jsonl.gz").write_bytes(gzip.compress(LINES, mtime=0))
    (folder / "x.jsonl").write_bytes(LINES)
    (folder / "x.txt").write_text(TEXTS[3])
    return Files({kind: (folder / kind).read_bytes() for kind in KINDS})


def read(*inputs, **options):
    """Documents, quarantine and, where all records are bad, what the error says."""
    quarantine = Quarantine(max_share=1.0)
    documents, message = [], ""
    try:
        for document in read_inputs([str(i) for i in inputs], "web", WorldConfig(), quarantine, **options):
            documents.append(document)
    except UserError as error:
        message = str(error)
        assert not documents or "records cannot be used" in message
    assert len(documents) + quarantine.bad == quarantine.records
    assert sum(case.records for case in quarantine) == quarantine.bad
    return documents, quarantine, message


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_of_each_kind(valid, tmp_path, kind):
    (tmp_path / kind).write_bytes(valid[kind])
    documents, quarantine, _ = read(tmp_path / kind)
    assert not quarantine.bad
    if kind == "x.txt":
        assert [d.text for d in documents] == [TEXTS[3]]
        return
    assert [(d.text, d.id, d.score) for d in documents] == [(r["text"], r["id"], r["score"]) for r in RECORDS]


@st.composite
def damage(draw, data: bytes) -> bytes:
    """`data` cut, with bytes changed, taken out or put in."""
    place = st.integers(0, len(data) - 1)
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(place), draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["cut", "change", "take", "put", "zero"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "take":
            data = data[:at] + data[at + size :]
        else:
            new = bytes(size) if kind == "zero" else draw(st.binary(min_size=1, max_size=size))
            data = data[:at] + new + data[at + (0 if kind == "put" else len(new)) :]
    return data


@pytest.mark.parametrize("kind", KINDS)
@given(choices=st.data())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_damaged_files_of_each_kind(valid, tmp_path, kind, choices):
    path = tmp_path / kind
    path.write_bytes(choices.draw(damage(valid[kind])))
    documents, quarantine, message = read(path)
    assert documents or message
    assert all(d.text.strip() and "\0" not in d.text and d.text.encode() for d in documents)
    assert len({d.id for d in documents}) == len(documents)
    if kind in CHECKED:
        right = {(d.text, d.score) for d in documents} <= {(r["text"], r["score"]) for r in RECORDS}
        assert right or (quarantine.bad and kind != "x.array_record")  # the checksums of the others come last
        whole = [d.id for d in documents] == [r["id"] for r in RECORDS]
        assert whole or quarantine.bad


@pytest.mark.parametrize("kind", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.array_record"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_file_that_ends_too_early_is_told(valid, tmp_path, kind, share):
    path = tmp_path / kind
    path.write_bytes(valid[kind][: int(len(valid[kind]) * share)])
    documents, quarantine, _ = read(path)
    assert quarantine.bad
    assert [d.text for d in documents] == TEXTS[: len(documents)]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_line_of_100_mb_is_never_held(tmp_path, ending, newline):
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / f"x.jsonl{ending}"
    openers = {"": open, ".gz": partial(gzip.open, compresslevel=1), ".zst": zstandard.open}
    with openers[ending](path, "wb") as file:
        file.write(b'{"text": "before"}' + newline + b'{"text": "')
        for _ in range(100):
            file.write(b"A" * 1_000_000)
        file.write(b'"}' + newline + b'{"text": "after"}')
    tracemalloc.start()
    documents, quarantine, _ = read(path, max_record_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(d.text, d.id) for d in documents] == [("before", "x.jsonl" + ending + ":1"), ("after", path.name + ":3")]
    assert [(case.line, case.reason) for case in quarantine] == [(2, "longer than 1,000,000 bytes")]
    assert peak < 40e6  # a little zstd of nothing but A gives 16 MiB, joined from pieces of as much


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_members_and_frames_follow_each_other(tmp_path, ending):
    zstandard = pytest.importorskip("zstandard")
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[ending]
    path = tmp_path / f"x.jsonl{ending}"
    whole = b"".join(pack(LINES[start : start + 700]) for start in range(0, len(LINES), 700))
    path.write_bytes(whole + (bytes(1000) if ending == ".gz" else b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"))
    documents, quarantine, _ = read(path)
    assert ([d.text for d in documents], quarantine.bad) == (TEXTS, 0)
    path.write_bytes(whole + b"garbage that is no member")
    documents, quarantine, _ = read(path)
    assert ([d.text for d in documents], quarantine.bad) == (TEXTS, 1)


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 100])
@given(lines=st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=6), end=st.booleans())
@settings(deadline=None, max_examples=40)
def test_lines_within_the_limit_come_whole(limit, lines, end):
    import io

    data = b"\n".join(lines) + (b"\n" if end else b"")
    found = list(streams.read_lines(io.BufferedReader(io.BytesIO(data), 4), limit))
    expected = io.BytesIO(data).readlines()
    assert [line if line is None or line.endswith(b"\n") or line == expected[-1] else "cut" for line in found] == [
        None if len(line) > limit and not (len(line) == limit + 1 and line.endswith(b"\n")) else line
        for line in expected
    ]


def test_long_texts_of_every_kind_are_refused(tmp_path):
    long = "long " * 100
    (tmp_path / "a.txt").write_text(long)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": long}))
    write_parquet(tmp_path / "c.parquet", {"text": [long, "short"]})
    write_array_record(tmp_path / "d.array_record", [long.encode()])
    documents, quarantine, _ = read(tmp_path, max_record_bytes=400)
    assert [d.text for d in documents] == ["short"]
    assert [case.line for case in quarantine] == [0, 1, 1, 1]
    assert {case.reason for case in quarantine} == {"longer than 400 bytes"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not JSON"),
        (b'{"text": "\\udc00"}', "surrogate"),
        (b'{"text": "x", "labels": {"\\ud800": "y"}}', "surrogate"),
        (b"\x00" * 50, "not JSON"),
        (b'{"text": "a\x00b"}', "not JSON"),
        (b'{"text": "x"} {"text": "y"}', "not JSON"),
        (b'\xff\xfe{\x00"\x00', "not UTF-8"),
    ],
)
def test_hostile_records(tmp_path, record, reason):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "good"}\n' + record + b"\n")
    documents, quarantine, _ = read(tmp_path / "x.jsonl")
    assert [d.text for d in documents] == ["good"]
    assert [(case.line, reason in case.reason) for case in quarantine] == [(2, True)]


def test_byte_order_marks_and_windows_lines(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\r\n{"text": "two"}\r\n')
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfthree\r\n")
    documents, quarantine, _ = read(tmp_path)
    assert [d.text for d in documents] == ["one", "two", "three\r\n"]
    assert not quarantine.bad


def test_parquet_with_nulls_and_other_types(tmp_path):
    pa = pytest.importorskip("pyarrow")
    labels = [{"topic": "x"}, {"topic": None}, None, {"topic": "y"}, {"topic": "z"}]
    binary = pa.array([b"bytes", b"caf\xe9", b"more", None, b" "], pa.binary())
    write_parquet(tmp_path / "a.parquet", {"text": binary, "labels": labels, "score": [0.5, None, 2.0, 0.0, 1.0]})
    write_parquet(tmp_path / "b.parquet", {"text": [1, 2]})
    write_parquet(tmp_path / "c.parquet", {"body": ["x", "y", "z"]})
    write_parquet(
        tmp_path / "d.parquet", {"text": pa.array(["one", "two", "one"]).dictionary_encode(), "id": [7, 8, 7]}
    )
    write_parquet(tmp_path / "e.parquet", {"text": pa.array([], pa.string())})
    documents, quarantine, _ = read(tmp_path)
    folder = tmp_path.name
    assert [(d.id, d.text, d.score, d.labels) for d in documents] == [
        (f"{folder}/a.parquet:1", "bytes", 0.5, {"topic": "x"}),
        (f"{folder}/a.parquet:3", "more", 0.0, {"score": "2.0"}),
        ("7", "one", 0.0, {}),
        ("8", "two", 0.0, {}),
    ]
    assert [(Path(case.file).name, case.line, case.records) for case in quarantine] == [
        *[("a.parquet", line, 1) for line in (2, 4, 5)],
        *[("b.parquet", line, 1) for line in (1, 2)],
        ("c.parquet", 0, 3),
        ("d.parquet", 3, 1),
    ]


def test_parquet_strings_that_are_not_utf8_cost_their_own_rows_only(tmp_path):
    pa = pytest.importorskip("pyarrow")
    text = pa.array([b"good", b"caf\xe9", b"also good"], pa.binary()).view(pa.string())
    write_parquet(tmp_path / "x.parquet", {"text": text})
    documents, quarantine, _ = read(tmp_path / "x.parquet")
    assert [d.text for d in documents] == ["good", "also good"]
    assert [(case.line, "not UTF-8" in case.reason) for case in quarantine] == [(2, True)]


def test_a_damaged_row_group_costs_its_own_rows_only(valid, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "x.parquet").write_bytes(valid["x.parquet"])
    column = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1).column(0)
    start, size = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    data = bytearray(valid["x.parquet"])
    data[start : start + size] = b"\xff" * size
    (tmp_path / "x.parquet").write_bytes(data)
    documents, quarantine, _ = read(tmp_path / "x.parquet")
    assert [d.id for d in documents] == [str(i) for i in range(60) if not 16 <= i < 32]
    assert [(case.line, case.records) for case in quarantine] == [(17, 16)]


def test_a_damaged_chunk_of_an_array_record_costs_its_own_records_only(tmp_path):
    records = [os.urandom(3000).hex().encode() for _ in range(40)]
    write_array_record(tmp_path / "x.array_record", records, "group_size:4,uncompressed")
    data = bytearray((tmp_path / "x.array_record").read_bytes())
    at = data.index(records[9][:100])
    data[at] ^= 1
    (tmp_path / "x.array_record").write_bytes(data)
    documents, quarantine, _ = read(tmp_path / "x.array_record")
    assert [d.text.encode() for d in documents] == [r for i, r in enumerate(records) if not 8 <= i < 12]
    assert [case.line for case in quarantine] == [9, 10, 11, 12]


def test_array_records_of_json_or_text(tmp_path):
    records = [b'{"text": "json", "id": "a"}', "naïve text".encode(), b"{not json", b"\xff", b"", b"[1]"]
    write_array_record(tmp_path / "x.array_record", records)
    documents, quarantine, _ = read(tmp_path / "x.array_record")
    assert [(d.id, d.text) for d in documents] == [
        ("a", "json"),
        ("x.array_record:2", "naïve text"),
        ("x.array_record:6", "[1]"),
    ]
    assert [case.line for case in quarantine] == [3, 4, 5]


def test_odd_files(tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    (folder / "folder.jsonl").mkdir(parents=True)
    (folder / "folder.jsonl" / "x.txt").write_text("in a folder named like a file")
    for number, kind in enumerate(KINDS[1:]):
        (folder / f"loop{number}{kind[1:]}").symlink_to(f"loop{number}{kind[1:]}")
        (folder / f"nowhere{number}{kind[1:]}").symlink_to("gone")
        (folder / f"empty{number}{kind[1:]}").write_bytes(b"")
    (folder / "self").symlink_to(folder)
    (folder / "good.txt").write_text("good")
    documents, quarantine, _ = read(folder)
    assert [d.id for d in documents] == ["corpus/folder.jsonl/x.txt", "corpus/good.txt"]
    bad = sorted(Path(case.file).name for case in quarantine)
    unreadable = [
        "empty4.array_record",
        "empty3.parquet",
        "empty2.jsonl.zst",
        "empty1.jsonl.gz",
    ]  # the others may be empty
    assert bad == sorted(unreadable + [p.name for p in folder.iterdir() if p.name[:4] in ("loop", "nowh")])


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_vanish_or_may_not_be_read(valid, tmp_path, monkeypatch, kind):
    (tmp_path / "good.txt").write_text("good")
    for name in ("gone", "secret"):
        (tmp_path / f"{name}{kind[1:]}").write_bytes(valid[kind])
    listed = list_files([str(tmp_path)])
    assert len(listed) == 3
    quarantine = Quarantine(max_share=1.0)
    reader = read_inputs([str(tmp_path)], "web", WorldConfig(), quarantine)
    (tmp_path / f"gone{kind[1:]}").unlink()
    deny(monkeypatch, "secret")
    assert [d.text for d in reader] == ["good"]
    assert [Path(case.file).stem.split(".")[0] for case in quarantine] == ["gone", "secret"]


def deny(monkeypatch, name):
    """Makes reading files whose path holds `name` fail, as the root user may read everything."""
    from etils.epath import backend

    opened, access = backend._OsPathBackend.open, os.access

    def refuse(self, path, mode):
        if name in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(self, path, mode)

    monkeypatch.setattr(backend._OsPathBackend, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: name not in str(path) and access(path, mode))


def test_many_cases_take_little_memory(tmp_path):
    tracemalloc.start()
    quarantine = Quarantine(max_share=1.0)
    for number in range(4000):
        quarantine.refuse("x.jsonl", number + 1, "bad " * 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert (quarantine.bad, len(quarantine.cases)) == (4000, 1000)
    assert [case.line for case in quarantine] == list(range(1, 4001))
    quarantine.write(tmp_path / "deep" / "cases.jsonl")
    written = (tmp_path / "deep" / "cases.jsonl").read_text().splitlines()
    assert len(written) == 4000
    assert json.loads(written[-1])["line"] == 4000
    copy = pickle.loads(pickle.dumps(quarantine))
    assert list(copy) == list(quarantine)
    copy.absorb(quarantine)
    assert (copy.bad, copy.records) == (8000, 8000)
