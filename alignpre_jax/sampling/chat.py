"""Conversations as requests: a model's own chat template, in a sandbox, and no message that could fake a turn."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alignpre_jax.foundation import UserError
from alignpre_jax.rows.chat import PLAIN_TEMPLATE, Message, render
from alignpre_jax.sampling.requests import Prompt, Request

_CUT, _ANSWER = "\ufdd1", "\ufdd2answer"  # code points that Unicode keeps out of text


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A jinja2 template, and the names of the tokens that it knows as `bos_token` and `eos_token` ("": end-of-text)."""

    source: str = PLAIN_TEMPLATE
    bos: str = ""
    eos: str = ""


class SpecialTokens(Protocol):
    """What is needed of a tokenizer."""

    eot: str
    eot_id: int
    special_tokens: dict[str, int]


class Chats(Protocol):
    """What is needed of an engine."""

    @property
    def tokenizer(self) -> Any:
        """See `SpecialTokens`."""

    @property
    def template(self) -> ChatTemplate:
        """Of its model."""


def chat_request(engine: Chats, messages: Sequence[Message], **more: Any) -> Request:
    """The request that has a model answer a conversation.

    Args:
      engine: whose model, with its chat template, is to answer.
      messages: each {"role", "content"}.
      more: other fields of `Request`. The token that ends a turn is among its `ends`.

    Raises:
      UserError: the template is broken or refuses the conversation; a message has a code point that is no character.
    """
    prompt = chat_prompt(messages, engine.template, engine.tokenizer)
    end = turn_end(engine.template, engine.tokenizer)
    ends = tuple(more.pop("ends", ())) + ((end,) if end not in (None, engine.tokenizer.eot_id) else ())
    return Request(prompt, ends=ends, **more)


def chat_prompt(messages: Sequence[Message], template: ChatTemplate, tokenizer: SpecialTokens) -> Prompt:
    """A conversation up to the cue for an answer, as texts and token ids.

    Names of special tokens that the template writes become these tokens; the same characters in a message stay text.
    Where the template writes no special token first, end-of-text goes before it, as before every document in training.
    """
    special = tokenizer.special_tokens
    names = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
    safe = []
    for message in messages:
        if any(mark in message["content"] for mark in (_CUT, _ANSWER[0])):
            raise UserError("a message contains a code point that is no character", where="messages", fix="remove it")
        content = names.sub(lambda found: found[0][:1] + _CUT + found[0][1:], message["content"])
        safe.append({**message, "content": content})
    text = _render(safe, template, tokenizer, is_answer_due=True)
    parts: list[str | int] = []
    place = 0
    for found in names.finditer(text):
        parts += [text[place : found.start()].replace(_CUT, ""), special[found[0]]]
        place = found.end()
    parts = [part for part in (*parts, text[place:].replace(_CUT, "")) if part != ""]
    return tuple(parts) if parts and isinstance(parts[0], int) else (tokenizer.eot_id, *parts)


def turn_end(template: ChatTemplate, tokenizer: SpecialTokens) -> int | None:
    """The special token that the template writes next after an answer; None if there is none."""
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    after = _render(talk, template, tokenizer, is_answer_due=False).partition(_ANSWER)[2]
    places = {after.find(name): i for name, i in tokenizer.special_tokens.items() if name in after}
    return places[min(places)] if places else None


def read_template(files: Mapping[str, bytes]) -> ChatTemplate:
    """The chat template among a model's files; without one, the plain one."""
    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    settings = settings if isinstance(settings, dict) else {}
    source = settings.get("chat_template", "")
    if isinstance(source, list):  # several, by name
        source = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}.get("default")
    if "chat_template.jinja" in files:
        source = files["chat_template.jinja"].decode()
    if not isinstance(source, str) or not source:
        return ChatTemplate()
    names = [settings.get(f"{name}_token") for name in ("bos", "eos")]
    bos, eos = (name.get("content", "") if isinstance(name, dict) else name or "" for name in names)
    return ChatTemplate(source, bos, eos)


def _render(
    messages: Sequence[Message], template: ChatTemplate, tokenizer: SpecialTokens, *, is_answer_due: bool
) -> str:
    bos, eos = template.bos or tokenizer.eot, template.eos or tokenizer.eot
    return render(template.source, messages, is_answer_due=is_answer_due, bos=bos, eos=eos)
