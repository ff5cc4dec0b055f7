"""From blocks to the files of a row store: which part of which block goes where, and the header."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignpre_jax.foundation import UserError, canonical_json, digest
from alignpre_jax.rows.blocks import Counts, Recipe, load_block, make_block
from alignpre_jax.rows.packing import Stream, join, to_rows
from alignpre_jax.rows.store import COLUMNS, SPANS, VERSION, RowHeader, write_records
from alignpre_jax.rows.tokenizer import Tokenizer

ROW_OPTIONS = "group_size:1,uncompressed"
DOCUMENT_OPTIONS = "group_size:64"
SHARD_DOCUMENTS = 262_144
DOCUMENT_LIMIT = 2**32 - 1  # spans number documents with 32 bits


@dataclasses.dataclass(frozen=True)
class Part:
    """Items [start, stop) of a block: tokens of its stream, or lines of its documents table."""

    block: int
    start: int
    stop: int


def digest_inputs(
    recipe: Recipe, stratum: str, tokenizer: Tokenizer, shard_rows: int, block_digests: Iterable[str]
) -> str:
    """16 hex digits that name all that a store depends on."""
    settings = [VERSION, stratum, dataclasses.asdict(recipe), shard_rows, tokenizer.digest, tokenizer.eot_id]
    return digest("\n".join([canonical_json(settings), *block_digests]).encode())


def make_header(
    recipe: Recipe, stratum: str, tokenizer: Tokenizer, shard_rows: int, inputs_digest: str, counts: Iterable[Counts]
) -> RowHeader:
    """The header of the store that a stratum's blocks make.

    Raises:
      UserError: the blocks do not fill one row, or there are more documents than spans can number.
    """
    kind = "text" if recipe.kind == "tokens" else recipe.kind
    total = Counts(*(sum(column) for column in zip(*map(dataclasses.astuple, counts), strict=True)))
    rows, rest = divmod(total.stream, recipe.length)
    if not rows:
        raise UserError(
            f"stratum {stratum!r} has {rest:,} tokens, which do not fill one row",
            where="row_length",
            fix=f"give it more documents or lower row_length to at most {rest}"
            if rest
            else "raise row_length: no prompt leaves room for an answer",
        )
    if total.documents >= DOCUMENT_LIMIT:
        raise UserError(f"{total.documents:,} documents in one stratum", where=stratum, fix="divide it into several")
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    spans = SPANS[kind]
    return RowHeader(
        version=VERSION,
        stratum=stratum,
        kind=kind,
        packing=recipe.packing,
        length=recipe.length,
        rows=rows,
        tokens=rows * recipe.length * (2 if kind == "pairs" else 1),
        padding_tokens=total.padding,
        masked_tokens=total.masked,
        documents=total.documents,
        dropped_tokens=rest + total.dropped,
        left_out_documents=total.left_out,
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        inputs_digest=inputs_digest,
        shard_rows=shard_rows,
        shard_documents=SHARD_DOCUMENTS,
        columns=tuple((name, "|u1" if name == "mask" else dtype) for name in COLUMNS[kind]),
        span_fields=tuple((name, spans[name].str) for name in spans.names or ()),
    )


def shard_parts(sizes: Sequence[int], shard_size: int, total: int) -> Iterator[list[Part]]:
    """For each shard, the parts of blocks that fill it.

    Args:
      sizes: of the blocks, one after the other.
      shard_size: of each shard but the last.
      total: of all shards; what the blocks have beyond it is left out.
    """
    ends = np.cumsum(sizes)
    for first in range(0, total, shard_size):
        last = min(first + shard_size, total)
        blocks = range(int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, last, "left")) + 1)
        begins = [int(ends[block]) - sizes[block] for block in blocks]
        yield [
            Part(block, max(first - begin, 0), min(last - begin, sizes[block]))
            for block, begin in zip(blocks, begins, strict=True)
            if sizes[block]
        ]


def row_records(streams: Iterable[tuple[Stream, int]], length: int) -> Iterator[bytes]:
    """The records of the rows that streams make, one after the other; they end with a full row.

    Args:
      streams: each with the number of documents before it.
      length: tokens per row.
    """
    rest: Stream | None = None
    for stream, documents in streams:
        stream = join([stream], [documents]) if rest is None else join([rest, stream], [0, documents])
        whole = len(stream) // length * length
        if whole:
            yield from to_rows(stream.cut(0, whole), length)
        rest = stream.cut(whole, len(stream)) if whole < len(stream) else None
    assert rest is None


def perform(task: dict[str, Any], payload: bytes, recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """Does one task of a build and says what came of it; files are written whole or not at all.

    The tasks are {"do": "block"} with a block's documents as payload, and {"do": "rows"} and {"do": "documents"} with
    "parts", a list of [block's file, start, stop, documents before]. "to" is the file to write.
    """
    to = Path(task["to"])
    if task["do"] == "block":
        block = make_block(recipe, tokenizer, payload.split(b"\n"))
        block.save(to)
        return {"counts": dataclasses.astuple(block.counts)}
    if task["do"] == "rows":
        streams = (
            (load_block(Path(file)).stream.cut(start, stop), before) for file, start, stop, before in task["parts"]
        )
        write_records(to, row_records(streams, recipe.length), ROW_OPTIONS)
    else:
        entries = (
            entry for file, start, stop, _ in task["parts"] for entry in load_block(Path(file)).entries[start:stop]
        )
        write_records(to, entries, DOCUMENT_OPTIONS)
    return {}
