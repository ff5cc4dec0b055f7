"""Documents to blocks: tokenized and packed stretches of a stratum, made independently of each other.

A document belongs to block number (bytes of its stratum's documents before it) // `block_bytes`,
so neither the number of workers nor anything else can move a block's boundary. A block depends on its own
documents and the recipe only; what makes blocks into rows is `packing.join` and `packing.to_rows`.
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
from alignpre_jax.rows.packing import PADDING, PAIR_SPAN, Stream, best_fit, concatenate
from alignpre_jax.rows.template import is_end_of_text, learnt_parts, prompt_parts
from alignpre_jax.rows.tokenizer import Tokenizer

BLOCK_BYTES = 4_000_000  # of documents; a block is what is lost when a process is killed


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How documents become rows.

    Attributes:
      kind: "text", "tokens" (text that came tokenized), "chat" or "pairs".
      packing: "concat" or "best_fit"; chats are always "best_fit", pairs have a row each.
      length: tokens per row.
      template: of chats, and of prompts that are messages.
      block_bytes: about how much a block has, as JSON; best-fit packs within a block.
    """

    kind: str
    packing: str
    length: int
    template: str = ""
    block_bytes: int = BLOCK_BYTES


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of a block: `stream` is tokens in its stretch of the stream, padding included."""

    documents: int = 0
    stream: int = 0
    padding: int = 0
    masked: int = 0
    dropped: int = 0
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Block:
    """A packed stretch of a stratum and its lines of the documents table, numbered from 0 in the stretch."""

    stream: Stream
    entries: Sequence[bytes]
    counts: Counts

    def save(self, path: Path) -> None:
        """Writes the block as an .npz file, whole or not at all; `load_block` reads it."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The block as the bytes of an .npz file."""
        file = io.BytesIO()
        arrays = {f"column_{name}": column for name, column in self.stream.columns.items()}
        entries = np.frombuffer(b"\n".join(self.entries), np.uint8)
        counts = np.array(dataclasses.astuple(self.counts), np.int64)
        np.savez(file, counts=counts, entries=entries, spans=self.stream.spans, **arrays)  # type: ignore[arg-type]
        return file.getvalue()


def load_block(source: Path | bytes) -> Block:
    """The block that was saved, checked against the file's checksums."""
    with _damage(source), np.load(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        columns = {name.removeprefix("column_"): file[name] for name in file.files if name.startswith("column_")}
        entries = file["entries"].tobytes().split(b"\n")
        return Block(Stream(columns, file["spans"]), entries, Counts(*file["counts"].tolist()))


def load_counts(path: Path) -> Counts:
    """The counts of a saved block."""
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
    """16 hex digits that name all that a block depends on."""
    settings = [dataclasses.asdict(recipe), tokenizer.digest, tokenizer.eot_id]
    state = hashlib.sha256(canonical_json(settings).encode())
    for line in lines:
        state.update(b"\n" + line)
    return state.hexdigest()[:16]


def make_block(recipe: Recipe, tokenizer: Tokenizer, lines: Sequence[bytes]) -> Block:
    """Tokenizes and packs the documents of one block.

    Args:
      recipe: how.
      tokenizer: with what.
      lines: each document as JSON: {"id", "source", "score", "labels"}, and {"text"}, {"tokens"}, {"messages"}
        or {"prompt", "chosen", "rejected"}, as the recipe's kind says.

    Raises:
      UserError: the chat template does not work.
    """
    documents = [json.loads(line) for line in lines]
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    make = {"text": _text_block, "tokens": _text_block, "chat": _chat_block, "pairs": _pair_block}[recipe.kind]
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
    stream = _pack(recipe, columns, lengths, [document["score"] for document in documents], tokenizer.eot_id)
    counts = Counts(len(documents), len(stream), stream.padding)
    return Block(stream, _entries(documents, sizes, lengths.tolist()), counts)


def _pack(
    recipe: Recipe, columns: Mapping[str, np.ndarray], lengths: np.ndarray, scores: Sequence[float], padding: int
) -> Stream:
    if recipe.packing == "concat":
        return concatenate(columns, lengths, scores)
    return best_fit(columns, lengths, scores, recipe.length, padding)


def _chat_block(recipe: Recipe, tokenizer: Tokenizer, documents: list[dict[str, Any]], dtype: np.dtype) -> Block:
    parts = [_of(document, learnt_parts, document["messages"], recipe.template) for document in documents]
    encoded = iter(_encode_parts(tokenizer, [text for conversation in parts for text, _ in conversation]))
    tokens: list[list[int]] = []
    masks: list[list[int]] = []
    for conversation in parts:
        pieces = [(next(encoded), learnt) for _, learnt in conversation]
        if not conversation or not is_end_of_text(_first(conversation)):
            pieces.insert(0, ([tokenizer.eot_id], False))
        tokens.append([token for piece, _ in pieces for token in piece])
        masks.append([int(learnt) for piece, learnt in pieces for _ in piece])
    length, totals = recipe.length, [len(ids) for ids in tokens]
    kept = [number for number, mask in enumerate(masks) if any(mask[:length])]
    lengths = np.array([min(totals[number], length) for number in kept], np.int64)
    columns = {
        name: np.fromiter((value for n in kept for value in values[n][:length]), kind, int(lengths.sum()))
        for name, values, kind in (("tokens", tokens, dtype), ("mask", masks, np.dtype("|u1")))
    }
    scores = [documents[number]["score"] for number in kept]
    stream = best_fit(columns, lengths, scores, length, tokenizer.eot_id)
    _renumber(stream.spans, kept)
    padding = stream.padding
    counts = Counts(
        documents=len(documents),
        stream=len(stream),
        padding=padding,
        masked=len(stream) - padding - int(columns["mask"].sum()),
        dropped=sum(totals) - int(lengths.sum()),
        left_out=len(documents) - len(kept),
    )
    return Block(stream, _entries(documents, _sizes(documents, "messages"), totals), counts)


def _pair_block(recipe: Recipe, tokenizer: Tokenizer, documents: list[dict[str, Any]], dtype: np.dtype) -> Block:
    length, eot = recipe.length, tokenizer.eot_id
    prompts = [_of(document, _prompt, document["prompt"], recipe.template) for document in documents]
    encoded = iter(_encode_parts(tokenizer, [part for parts in prompts for part in parts]))
    asked = [[eot, *itertools.chain.from_iterable(next(encoded) for _ in parts)] for parts in prompts]
    asked = [ids[1:] if ids[1:2] == [eot] else ids for ids in asked]
    answers = {
        name: [[*ids, eot] for ids in tokenizer.encode_batch([document[name] for document in documents])]
        for name in ("chosen", "rejected")
    }
    kept = [number for number, ids in enumerate(asked) if len(ids) < length]
    spans = np.zeros(len(kept), PAIR_SPAN)
    spans["document"] = kept
    spans["start"] = np.arange(len(kept)) * length
    spans["score"] = [documents[number]["score"] for number in kept]
    spans["prompt"] = [len(asked[number]) for number in kept]
    columns = {name: np.full((len(kept), length), eot, dtype) for name in ("tokens", "rejected")}
    for name, column in (("chosen", "tokens"), ("rejected", "rejected")):
        for row, number in enumerate(kept):
            ids = [*asked[number], *answers[name][number]][:length]
            columns[column][row, : len(ids)] = ids
            spans[name][row] = len(ids)
    totals = [2 * len(ids) + sum(len(answers[name][n]) for name in answers) for n, ids in enumerate(asked)]
    held = int(spans["chosen"].sum() + spans["rejected"].sum())
    counts = Counts(
        documents=len(documents),
        stream=len(kept) * length,
        padding=2 * len(kept) * length - held,
        masked=2 * int(spans["prompt"].sum()),
        dropped=sum(totals) - held,
        left_out=len(documents) - len(kept),
    )
    stream = Stream({name: column.reshape(-1) for name, column in columns.items()}, spans)
    return Block(stream, _entries(documents, _sizes(documents, "prompt", "chosen", "rejected"), totals), counts)


def _prompt(prompt: Any, template: str) -> list[str]:
    return [prompt] if isinstance(prompt, str) else prompt_parts(prompt, template)


def _of(document: Mapping[str, Any], function: Any, *arguments: Any) -> Any:
    """Calls `function`; a user's error in it names the document."""
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(error.what, where=f"{error.where or 'messages'} of {document['id']}", fix=error.fix) from None


def _first(conversation: Sequence[tuple[str, bool]]) -> str:
    return next((text for text, _ in conversation if text), "")


def _encode_parts(tokenizer: Tokenizer, parts: Sequence[str]) -> list[list[int]]:
    ids = tokenizer.encode_batch(["" if is_end_of_text(part) else part for part in parts])
    return [[tokenizer.eot_id] if is_end_of_text(part) else found for part, found in zip(parts, ids, strict=True)]


def _renumber(spans: np.ndarray, numbers: Sequence[int]) -> None:
    real = spans["document"] != PADDING
    spans["document"][real] = np.asarray(numbers, np.uint32)[spans["document"][real]]


def _sizes(documents: Iterable[Mapping[str, Any]], *names: str) -> list[int]:
    """Bytes of text: of strings, or of messages' contents."""
    return [
        sum(
            len((part if isinstance(part, str) else part["content"]).encode())
            for name in names
            for part in ([document[name]] if isinstance(document[name], str) else document[name])
        )
        for document in documents
    ]


def _entries(documents: Iterable[Mapping[str, Any]], sizes: Iterable[int], tokens: Iterable[int]) -> list[bytes]:
    names = ("id", "source", "score", "labels")
    return [
        canonical_json({**{name: document[name] for name in names}, "bytes": size, "tokens": count}).encode()
        for document, size, count in zip(documents, sizes, tokens, strict=True)
    ]
