"""This module turns blocks into the files of a row store: the header, and files filled by parts of the blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignpre_jax.foundation import UserError, canonical_json, digest
from alignpre_jax.rows.blocks import Counts, Recipe, load_block, make_block
from alignpre_jax.rows.packing import Stream, join, to_rows
from alignpre_jax.rows.store import SPANS, VERSION, RowHeader, columns_of, write_records
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


class TooSmall(UserError):
    """The error of a stratum that does not fill a single row.

    Attributes:
      stratum: the name of the stratum, for callers who can do without its rows.
    """

    def __init__(self, stratum: str, what: str, *, where: str, fix: str):
        super().__init__(what, where=where, fix=fix)
        self.stratum = stratum


def check_size(header: RowHeader) -> None:
    """Raises `TooSmall` if a store has no row."""
    if header.rows:
        return
    tokens = header.dropped_tokens
    if header.kind == "text":
        what = f"stratum {header.stratum!r} has {tokens:,} tokens, which do not fill one row"
        fix = f"give it more documents or lower rows.length to at most {tokens}"
    else:
        what = f"none of the {header.documents:,} documents of stratum {header.stratum!r} has room in a row"
        fix = "raise rows.length: pairs and prompts have to be whole, and a chat at least up to its first answer"
    raise TooSmall(header.stratum, what, where="rows.length", fix=fix)


def digest_inputs(
    recipe: Recipe, stratum: str, tokenizer: Tokenizer, shard_rows: int, block_digests: Iterable[str]
) -> str:
    """Returns 16 hex digits that name everything that a store depends on."""
    settings = [VERSION, stratum, dataclasses.asdict(recipe), shard_rows, tokenizer.digest, tokenizer.eot_id]
    return digest("\n".join([canonical_json(settings), *block_digests]).encode())


def make_header(
    recipe: Recipe, stratum: str, tokenizer: Tokenizer, shard_rows: int, inputs_digest: str, counts: Iterable[Counts]
) -> RowHeader:
    """Makes the header of the store that a stratum's blocks make up.

    Raises:
      UserError: there are more documents than spans can number, or the masks of chats or pairs do not say to learn
        what should be learnt.
    """
    kind = "text" if recipe.kind == "tokens" else recipe.kind
    total = Counts(*(sum(column) for column in zip(*map(dataclasses.astuple, counts), strict=True)))
    if total.documents >= DOCUMENT_LIMIT:
        raise UserError(f"{total.documents:,} documents in one stratum", where=stratum, fix="divide it into several")
    if kind in ("chat", "pairs"):
        _check_masks(total, stratum, recipe.length)
    rows, rest = divmod(total.stream, recipe.length)
    spans = SPANS[kind]
    return RowHeader(
        version=VERSION,
        stratum=stratum,
        kind=kind,
        packing=recipe.packing,
        length=recipe.length,
        rows=rows,
        tokens=rows * recipe.length,
        padding_tokens=total.padding,
        learnt_tokens=total.learnt - (rest if kind == "text" else 0),
        learnt_ends=total.ends,
        turns=total.turns,
        truncated=total.truncated,
        documents=total.documents,
        dropped_tokens=rest + total.dropped,
        left_out_documents=total.left_out,
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        inputs_digest=inputs_digest,
        shard_rows=shard_rows,
        shard_documents=SHARD_DOCUMENTS,
        columns=tuple(columns_of(kind, tokenizer.vocab_size, total.scored > 0).items()),
        span_fields=tuple((name, spans[name].str) for name in spans.names or ()),
    )


def _check_masks(total: Counts, stratum: str, length: int) -> None:
    """Refuses rows of which nothing or everything would be learnt, or that would not teach where a turn ends.

    None of these mistakes shows in a loss curve: the model merely never stops, or learns to ask the questions as well.
    """
    whole = total.turns - total.truncated
    where = f"stratum {stratum!r}"
    if not total.learnt:
        what = f"nothing is to be learnt of its {total.documents:,} documents"
        fix = f"have the assistant answer in them; or give rows more than {length} tokens if prompts fill them"
        raise UserError(what, where=where, fix=fix)
    if total.stream - total.padding - total.learnt <= total.sequences:
        what = "every token is to be learnt, also what the assistant did not say"
        raise UserError(what, where=where, fix="mend the chat template: the cue for an answer must not be empty")
    if total.ends != whole:
        what = f"{total.ends:,} ends of turns are learnt, and there are {whole:,} whole turns of the assistant"
        fix = "mend the chat template: each of the assistant's turns must end with the same special token, once"
        raise UserError(what, where=where, fix=fix)


def shard_parts(sizes: Sequence[int], shard_size: int, total: int) -> Iterator[list[Part]]:
    """Yields, for each shard, the parts of blocks that fill it.

    Args:
      sizes: the sizes of the blocks, which lie one after the other.
      shard_size: the size of each shard but the last.
      total: the size of all shards together; what the blocks have beyond it is left out.
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


def row_records(
    streams: Iterable[tuple[Stream, int]], length: int, columns: Sequence[Sequence[str]]
) -> Iterator[bytes]:
    """Yields the records of the rows that streams make, one after the other; the last stream must end with a full row.

    Args:
      streams: the streams, each with the number of documents before it.
      length: tokens per row.
      columns: (name, dtype) of the store's columns; a column that a stream does not have is 0 there.
    """
    rest: Stream | None = None
    for each, documents in streams:
        stream = each.with_columns(columns)
        stream = join([stream], [documents]) if rest is None else join([rest, stream], [0, documents])
        whole = len(stream) // length * length
        if whole:
            yield from to_rows(stream.cut(0, whole), length)
        rest = stream.cut(whole, len(stream)) if whole < len(stream) else None
    assert rest is None


def perform(task: dict[str, Any], payload: bytes, recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """Does one task of a build and says what came of it; files are written whole or not at all.

    The tasks are {"do": "block", "kind"} with a block's documents as payload, and {"do": "rows", "columns"} and
    {"do": "documents"} with "parts", a list of [block's file, start, stop, documents before]. "to" is the file that is
    to be written.
    """
    to = Path(task["to"])
    if task["do"] == "block":
        block = make_block(dataclasses.replace(recipe, kind=task["kind"]), tokenizer, payload.split(b"\n"))
        block.save(to)
        return {"counts": dataclasses.astuple(block.counts)}
    if task["do"] == "rows":
        streams = (
            (load_block(Path(file)).stream.cut(start, stop), before) for file, start, stop, before in task["parts"]
        )
        write_records(to, row_records(streams, recipe.length, task["columns"]), ROW_OPTIONS)
    else:
        entries = (
            entry for file, start, stop, _ in task["parts"] for entry in load_block(Path(file)).entries[start:stop]
        )
        write_records(to, entries, DOCUMENT_OPTIONS)
    return {}
