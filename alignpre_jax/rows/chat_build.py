"""Conversations to chat rows, and answers that people preferred to pair rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from alignpre_jax.foundation import PathLike, Report, UserError, silent
from alignpre_jax.rows.blocks import BLOCK_BYTES, Recipe
from alignpre_jax.rows.build import Line, line_of, make_stores
from alignpre_jax.rows.store import RowStore
from alignpre_jax.rows.template import PLAIN_TEMPLATE
from alignpre_jax.rows.tokenizer import Tokenizer


def build_chat_rows(
    conversations: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    length: int,
    root: PathLike,
    report: Report = silent,
    *,
    stratum: str = "chat",
    template: str = PLAIN_TEMPLATE,
    shard_rows: int = 65_536,
    block_bytes: int = BLOCK_BYTES,
    workers: int = 0,
) -> dict[str, RowStore]:
    """Packs conversations into rows whose mask says what is to be learnt: what the assistant says.

    Several conversations share a row, best fit, and none is in two rows: one of more than `length` tokens
    loses its end, and one that has nothing to learn in its first `length` tokens is left out. The header counts both.

    Args:
      conversations: each {"messages": [{"role": "user", "content": "..."}, ...]}, and if known "id" (else its number),
        "stratum", "source" (else the stratum's first part), "score" and "labels".
      tokenizer: turns text into tokens; the end-of-text token precedes each conversation.
      length: tokens per row, at least 2.
      root: a local folder, made if need be; see `build_rows`.
      report: told the number of conversations and tokens after each block.
      stratum: of conversations that do not name one.
      template: see `template.learnt_parts`; by default "User: ...", a blank line, "Assistant: ...", end of text.
      shard_rows: rows per file.
      block_bytes: of conversations, in a block.
      workers: processes; 0 chooses.

    Raises:
      UserError: a conversation is not of that form, the template does not work, or what `build_rows` raises.
    """
    recipe = Recipe("chat", "best_fit", length, template, block_bytes)
    lines = _lines(conversations, stratum, _check_conversation)
    return make_stores(lines, recipe, tokenizer, root, report, shard_rows, workers)


def build_pair_rows(
    pairs: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    length: int,
    root: PathLike,
    report: Report = silent,
    *,
    stratum: str = "pairs",
    template: str = PLAIN_TEMPLATE,
    shard_rows: int = 65_536,
    block_bytes: int = BLOCK_BYTES,
    workers: int = 0,
) -> dict[str, RowStore]:
    """Makes a row of each prompt with its chosen and its rejected answer.

    The prompt's tokens are the same in both columns, and the end-of-text token ends either answer. Answers lose
    what has no room in `length` tokens, and a pair whose prompt leaves no room is left out; the header counts both.

    Args:
      pairs: each {"prompt": ..., "chosen": "...", "rejected": "..."}, the prompt a text that the answers simply follow
        or messages for the template; and if known "id", "stratum", "source", "score" and "labels".
      tokenizer: turns text into tokens; the end-of-text token precedes each prompt.
      length: tokens per row, at least 2.
      root: a local folder, made if need be; see `build_rows`.
      report: told the number of pairs and tokens after each block.
      stratum: of pairs that do not name one.
      template: of prompts that are messages; see `build_chat_rows`.
      shard_rows: rows per file.
      block_bytes: of pairs, in a block.
      workers: processes; 0 chooses.

    Raises:
      UserError: a pair is not of that form, the template does not work, or what `build_rows` raises.
    """
    recipe = Recipe("pairs", "pairs", length, template, block_bytes)
    return make_stores(_lines(pairs, stratum, _check_pair), recipe, tokenizer, root, report, shard_rows, workers)


def _lines(
    items: Iterable[Mapping[str, Any]], stratum: str, content: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Iterator[Line]:
    for number, item in enumerate(items):
        try:
            found = content(item)
        except (KeyError, TypeError, ValueError) as error:
            fix = 'messages are [{"role": ..., "content": ...}, ...], other texts strings'
            name = f"item {number} ({item['id']})" if isinstance(item, Mapping) and "id" in item else f"item {number}"
            raise UserError(f"not of the form that is asked for: {error!r}", where=name, fix=fix) from None
        of = str(item.get("stratum", stratum))
        facts = {
            "id": str(item.get("id", number)),
            "source": str(item.get("source", of.partition("/")[0])),
            "score": float(item.get("score", 0.0)),
            "labels": dict(item.get("labels", {})),
        }
        yield of, line_of({**facts, **found})


def _check_conversation(item: Mapping[str, Any]) -> dict[str, Any]:
    messages = _messages(item["messages"])
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no message is the assistant's")
    return {"messages": messages}


def _check_pair(item: Mapping[str, Any]) -> dict[str, Any]:
    prompt = item["prompt"]
    return {
        "prompt": prompt if isinstance(prompt, str) else _messages(prompt),
        "chosen": _text(item["chosen"]),
        "rejected": _text(item["rejected"]),
    }


def _messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"role": _text(message["role"]), "content": _text(message["content"])} for message in messages]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
