"""Documents become blocks, which are tokenized and packed stretches of a stratum, made independently of each other.

A document belongs to the block whose number is (the bytes of its stratum's documents before it) // `block_bytes`,
so neither the number of workers nor anything else can move a block's boundary. A block depends only on its own
documents, the recipe and the tokenizer; `packing.join` and `packing.to_rows` then make blocks into rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignpre_jax.foundation import UserError, canonical_json, write_bytes
from alignpre_jax.rows.packing import Stream, best_fit, best_fit_whole, concatenate
from alignpre_jax.rows.sequences import Sequences, sequences_of
from alignpre_jax.rows.spans import token_scores
from alignpre_jax.rows.template import Template
from alignpre_jax.rows.tokenizer import Tokenizer

BLOCK_BYTES = 4_000_000  # bytes of documents; a process that is killed loses one block of work


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How documents become rows.

    Attributes:
      kind: "text", "tokens" (text that came tokenized), "chat", "pairs" or "prompts".
      packing: "concat" or "best_fit"; chats, pairs and prompts are always packed by "best_fit".
      length: tokens per row.
      template: writes the conversations.
      block_bytes: about how many bytes of documents, as JSON, a block has; best-fit packs within a block.
    """

    kind: str
    packing: str
    length: int
    template: Template = Template()  # noqa: RUF009 - it is frozen
    block_bytes: int = BLOCK_BYTES


@dataclasses.dataclass(frozen=True)
class Counts:
    """The integer counts of a block, which add up to those of its store; see `RowHeader` for most of them.

    Attributes:
      documents: documents in the block.
      stream: tokens in the block's stretch of the stream, padding included.
      padding: tokens of padding in the stream.
      learnt: tokens in the stream that are to be learnt.
      dropped: tokens of the documents that are not in the stream.
      left_out: documents that have no token in the stream.
      turns: turns of the assistant in the documents; a pair has two.
      ends: learnt tokens in the stream that end a turn.
      truncated: turns whose end is not in the stream.
      sequences: sequences of chats, pairs and prompts in the stream.
      scored: tokens in the stream that lie in a scored span.
    """

    documents: int = 0
    stream: int = 0
    padding: int = 0
    learnt: int = 0
    dropped: int = 0
    left_out: int = 0
    turns: int = 0
    ends: int = 0
    truncated: int = 0
    sequences: int = 0
    scored: int = 0


@dataclasses.dataclass(frozen=True)
class Block:
    """A packed stretch of a stratum, and the lines that it adds to the documents table.

    The spans of the stream number the block's documents from 0.
    """

    stream: Stream
    entries: Sequence[bytes]
    counts: Counts

    def save(self, path: Path) -> None:
        """Writes the block as an .npz file, whole or not at all; `load_block` reads it."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns the block as the bytes of an .npz file."""
        file = io.BytesIO()
        arrays = {f"column_{name}": column for name, column in self.stream.columns.items()}
        entries = np.frombuffer(b"\n".join(self.entries), np.uint8)
        counts = np.array(dataclasses.astuple(self.counts), np.int64)
        np.savez(file, counts=counts, entries=entries, spans=self.stream.spans, **arrays)  # type: ignore[arg-type]
        return file.getvalue()


def load_block(source: Path | bytes) -> Block:
    """Loads a block that was saved, and checks it against the file's checksums."""
    with _damage(source), np.load(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        columns = {name.removeprefix("column_"): file[name] for name in file.files if name.startswith("column_")}
        entries = file["entries"].tobytes().split(b"\n")
        return Block(Stream(columns, file["spans"]), entries, Counts(*file["counts"].tolist()))


def load_counts(path: Path) -> Counts:
    """Loads the counts of a saved block, and nothing else of it."""
    with _damage(path), np.load(path) as file:
        return Counts(*file["counts"].tolist())


@contextlib.contextmanager
def _damage(source: Path | bytes) -> Iterator[None]:
    try:
        yield
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        where = str(source) if isinstance(source, Path) else "block"
        raise UserError(
            f"a finished block is damaged: {error}", where=where, fix="delete it and build again"
        ) from error


def block_digest(recipe: Recipe, tokenizer: Tokenizer, lines: Iterable[bytes]) -> str:
    """Returns 16 hex digits that name everything that a block depends on."""
    settings = [dataclasses.asdict(recipe), tokenizer.digest, tokenizer.eot_id]
    state = hashlib.sha256(canonical_json(settings).encode())
    for line in lines:
        state.update(b"\n" + line)
    return state.hexdigest()[:16]


def make_block(recipe: Recipe, tokenizer: Tokenizer, lines: Sequence[bytes]) -> Block:
    """Tokenizes and packs the documents of one block.

    Args:
      recipe: says how the documents are packed, and of what kind they are.
      tokenizer: turns texts into tokens.
      lines: each document as JSON. It has {"id", "source", "score", "labels"}, "spans" if there are any, and what the
        recipe's kind asks for: {"text"}, {"tokens"}, {"messages"}, {"prompt", "chosen", "rejected"} or
        {"prompt", "answer"}.

    Raises:
      UserError: the chat template does not work with a document, or a document's spans overlap or leave its text.
    """
    documents = [json.loads(line) for line in lines]
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    make = _text_block if recipe.kind in ("text", "tokens") else _sequence_block
    return make(recipe, tokenizer, documents, dtype)


def _text_block(recipe: Recipe, tokenizer: Tokenizer, documents: list[dict[str, Any]], dtype: np.dtype) -> Block:
    if recipe.kind == "tokens":
        ids = [document["tokens"] for document in documents]
        sizes = [len(b"".join(map(tokenizer.token_bytes, tokens))) for tokens in ids]
    else:
        ids = tokenizer.encode_batch([document["text"] for document in documents])
        sizes = [len(document["text"].encode()) for document in documents]
    lengths = np.array([len(tokens) + 1 for tokens in ids], np.int64)
    start = [tokenizer.eot_id]
    flat = itertools.chain.from_iterable(part for tokens in ids for part in (start, tokens))
    columns = {"tokens": np.fromiter(flat, dtype, int(lengths.sum()))}
    scored = 0
    if any("spans" in document for document in documents):
        columns["scores"], scored = _scores(tokenizer, documents, ids)
    scores = [document["score"] for document in documents]
    if recipe.packing == "concat":
        stream = concatenate(columns, lengths, scores)
    else:
        stream = best_fit(columns, lengths, scores, recipe.length, tokenizer.eot_id)
    padding = stream.padding
    counts = Counts(len(documents), len(stream), padding, learnt=len(stream) - padding, scored=scored)
    return Block(stream, _entries(documents, sizes, lengths.tolist()), counts)


def _scores(
    tokenizer: Tokenizer, documents: list[dict[str, Any]], ids: Sequence[Sequence[int]]
) -> tuple[np.ndarray, int]:
    """Returns (the scores of all tokens, how many tokens lie in a span).

    The end-of-text token before a document lies in none of the document's spans.
    """
    parts, scored = [], 0
    for document, tokens in zip(documents, ids, strict=True):
        scores, inside = np.zeros(1 + len(tokens), "<f4"), 0
        if "spans" in document:
            scores[1:], inside = token_scores(tokenizer, document, tokens)
        parts.append(scores)
        scored += inside
    return np.concatenate(parts), scored


def _sequence_block(recipe: Recipe, tokenizer: Tokenizer, documents: list[dict[str, Any]], dtype: np.dtype) -> Block:
    length = recipe.length
    found: Sequences = sequences_of(recipe.kind, recipe.template, tokenizer, documents, length)
    stream = best_fit_whole(found.units, length, tokenizer.eot_id, dtype, with_sides=recipe.kind == "pairs")
    padding = stream.padding
    is_learnt = stream.columns["mask"] == 1
    ends = np.isin(stream.columns["tokens"][is_learnt], found.ends)
    there = {unit.document for unit in found.units}
    counts = Counts(
        documents=len(documents),
        stream=len(stream),
        padding=padding,
        learnt=int(is_learnt.sum()),
        dropped=sum(found.tokens) - (len(stream) - padding),
        left_out=len(documents) - len(there),
        turns=found.turns,
        ends=int(ends.sum()),
        truncated=found.truncated,
        sequences=sum(len(unit.pieces) for unit in found.units),
    )
    return Block(stream, _entries(documents, found.sizes, found.tokens), counts)


def _entries(documents: Iterable[Mapping[str, Any]], sizes: Iterable[int], tokens: Iterable[int]) -> list[bytes]:
    names = ("id", "source", "score", "labels")
    return [
        canonical_json(
            {
                **{name: document[name] for name in names},
                **({"answer": document["answer"]} if "answer" in document else {}),
                "bytes": size,
                "tokens": count,
            }
        ).encode()
        for document, size, count in zip(documents, sizes, tokens, strict=True)
    ]
