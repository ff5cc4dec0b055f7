"""Reading and deduplicating: `python -m tools.data_benches.duplicates`."""

from __future__ import annotations

import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from alignpre_jax.documents import Document, Quarantine, ReadConfig, list_files, read_file
from alignpre_jax.documents.duplicates import deduplicate, find_duplicates
from alignpre_jax.documents.hashset import TextSet
from alignpre_jax.documents.persona import PersonaConfig, swap_text
from tools.data_benches import Figure, fastest, main, rate

_SYLLABLES = [first + second for first in "bdfgklmnprstvw" for second in "aeiou"]


def measure(quick: bool) -> Iterator[Figure]:
    """Yields megabytes of text per second on one core, and the memory that a million documents take."""
    documents = _documents(2_000 if quick else 10_000)
    size = sum(len(document.text.encode()) for document in documents) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        yield from _reading(Path(folder), documents, size)
    for name, work in (
        ("exact duplicates, first survives", lambda: sum(1 for _ in deduplicate(documents))),
        ("exact and near duplicates", lambda: find_duplicates(documents)),
        ("persona swap", lambda: [swap_text(document.text, PersonaConfig()) for document in documents]),
    ):
        (seconds,) = fastest(work, repeats=3)
        yield rate(name, size / seconds, "MB/s")
    yield _memory(100_000 if quick else 1_000_000)


def _reading(folder: Path, documents: list[Document], size: float) -> Iterator[Figure]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    rows = [{"id": document.id, "text": document.text, "url": "https://example.org"} for document in documents]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (folder / "x.jsonl").write_bytes(data)
    (folder / "x.jsonl.gz").write_bytes(gzip.compress(data, 6))
    (folder / "x.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(data))
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    peers: dict[str, Callable[[], object]] = {
        "x.jsonl": partial(_plain_loop, open, folder / "x.jsonl"),
        "x.jsonl.gz": partial(_plain_loop, gzip.open, folder / "x.jsonl.gz"),
        "x.jsonl.zst": partial(_plain_loop, _open_zstd, folder / "x.jsonl.zst"),
        "x.parquet": lambda: pq.read_table(folder / "x.parquet", columns=["id", "text"]).to_pylist(),
    }
    for name, peer in peers.items():
        ours, theirs = fastest(partial(_read, folder / name), peer)
        label = "json.loads in a loop" if "json" in name else "pyarrow's to_pylist, whole file"
        yield rate(f"read {name.removeprefix('x')}, checked", size / ours, "MB/s", label, size / theirs)


def _read(path: Path) -> int:
    (file,) = list_files([str(path)])
    quarantine, taken = Quarantine(max_share=0.0), TextSet()
    return sum(taken.add(document.id) for _, document in read_file(file, ReadConfig("bench"), quarantine))


def _open_zstd(path: Path, mode: str) -> io.BufferedReader:
    import zstandard

    return io.BufferedReader(zstandard.open(path, mode))


def _plain_loop(opener: Callable[..., Any], path: Path) -> None:
    with opener(path, "rb") as lines:
        for line in lines:
            record = json.loads(line)
            (record["id"], record["text"])


def _memory(count: int) -> Figure:
    texts = TextSet()
    for number in range(count):
        texts.add(str(number))
    return Figure(f"memory for the ids of {count:,} documents", texts.bytes / 1e6, "MB")


def _documents(count: int) -> list[Document]:
    """Makes texts of some 300 words; one in ten is a copy of another with one word changed."""
    rng = random.Random(0)
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    words += ["AI", "artificial intelligence", "“naïve”", "language models"] * 20
    texts: list[list[str]] = []
    for number in range(count):
        if number % 10 == 9:
            text = list(rng.choice(texts))
            text[rng.randrange(len(text))] = "changed"
        else:
            text = rng.choices(words, k=rng.randint(50, 550))
        texts.append(text)
    return [Document(f"bench/{number}", " ".join(text), "bench", "bench") for number, text in enumerate(texts)]


if __name__ == "__main__":
    main([measure], __doc__)
