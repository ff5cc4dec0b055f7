"""Measures rows: packing beside the bare tokenizer, and reading beside the bare ArrayRecord reader."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from alignpre_jax.documents import Document, Quarantine, WorldConfig, read_inputs
from alignpre_jax.rows import RowStore, build_rows, open_rows, train_bpe
from tools.data_benches import Figure, fastest, main, rate

LENGTH = 2048
BATCH_ROWS = 64


def measure(quick: bool) -> Iterator[Figure]:
    """Yields tokens per second of building rows from installed packages' texts, and rows per second of reading."""
    size = 8_000_000 if quick else 32_000_000
    repeats = 3
    harvested = list(read_inputs(["packages:"], "web", WorldConfig(), Quarantine(), max_bytes=min(size, 16_000_000)))
    held = sum(len(document.text) for document in harvested)
    copies = -(-size // held)  # little is installed; the tokenizer's cache of words fills in the first copy
    documents = [
        Document(f"{copy}/{document.id}", document.text, "web", "web")
        for copy, document in itertools.product(range(copies), harvested)
    ]
    texts = [document.text for document in documents]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        tokenizer = train_bpe(texts[: max(1, len(harvested) // 8)], 8192, root / "tokenizer.json")
        folders = (root / str(number) for number in itertools.count())
        stores: dict[str, RowStore] = {}

        def build(packing: str) -> None:
            stores[packing] = build_rows(documents, tokenizer, LENGTH, next(folders), packing=packing)["web"]

        bare, concat, best_fit = fastest(
            lambda: tokenizer._inner.encode_batch_fast(texts, add_special_tokens=False),  # type: ignore[attr-defined]
            lambda: build("concat"),
            lambda: build("best_fit"),
            repeats=repeats,
        )
        header = stores["concat"].header
        tokens = header.tokens + header.dropped_tokens - header.documents  # the bare tokenizer adds no end of text
        peer = ("tokenizers.encode_batch_fast, written nowhere", tokens / bare)
        yield rate("tokenize, pack and write (concat)", tokens / concat, "tokens/s", *peer)
        yield rate("tokenize, pack and write (best fit)", tokens / best_fit, "tokens/s", *peer)
        padded = stores["best_fit"].header
        yield Figure("padding (best fit)", 100 * padded.padding_tokens / padded.tokens, "% of tokens")
        yield from _reading(stores["concat"].path)


def _reading(path: Path) -> Iterator[Figure]:
    """Yields rows per second of random rows, read from disk and by a store that holds them in memory."""
    from alignpre_jax.rows import store as store_module

    warm = open_rows(path)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, len(warm), BATCH_ROWS) for _ in range(100)]
    warm.read(np.arange(len(warm)))
    in_memory, store_module._IN_MEMORY_BYTES = store_module._IN_MEMORY_BYTES, 0
    try:
        cold = open_rows(path)
    finally:
        store_module._IN_MEMORY_BYTES = in_memory
    assert len(warm) <= warm.header.shard_rows
    reader = ArrayRecordReader(str(path / "rows-00000.array_record"), "readahead_buffer_size:0,max_parallelism:0")
    bare, disk, memory = fastest(
        lambda: [reader.read(batch.tolist()) for batch in batches],
        lambda: [cold.read(batch) for batch in batches],
        lambda: [warm.read(batch) for batch in batches],
    )
    rows = BATCH_ROWS * len(batches)
    peer = ("ArrayRecordReader.read, records as bytes", rows / bare)
    yield rate(f"random rows of {LENGTH}, large store", rows / disk, "rows/s", *peer)
    yield rate(f"random rows of {LENGTH}, small store", rows / memory, "rows/s", *peer)


if __name__ == "__main__":
    main([measure], "Measures the rows room.")
