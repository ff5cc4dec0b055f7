"""A conversation becomes a request, by the chat template of the model that is to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from alignpre_jax.rows.template import Message, Template, chat_prompt, turn_end
from alignpre_jax.sampling.requests import Request


class Chats(Protocol):
    """What is needed of an engine."""

    @property
    def tokenizer(self) -> Any:
        """See `rows.template.SpecialTokens`."""

    @property
    def template(self) -> Template:
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
