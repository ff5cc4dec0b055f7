"""Conversations as text, with what is to be learnt of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.foundation import UserError

# "User: ...", a blank line, "Assistant: ..." and the end-of-text token, which says that the turn is over.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{{ eos_token if message.role == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_MARK = "\ufdd0"  # a code point that Unicode keeps out of text: it stands for the end-of-text token in rendered text

Message = Mapping[str, str]


def learnt_parts(messages: Sequence[Message], template: str) -> list[tuple[str, bool]]:
    """A conversation as parts of text, each with whether it is to be learnt; `"\\ufdd0"` is the end-of-text token.

    What is to be learnt of an assistant's message is what rendering it adds to the conversation before it with
    the cue for an answer, so the role's name is not part of it and the sign of its end is.

    Args:
      messages: each {"role", "content"}.
      template: in Jinja, run in a sandbox; gets `messages`, `add_generation_prompt`, and the end-of-text token as
        `eos_token` and `bos_token`. All else that it writes is ordinary text, and so is all that messages contain.

    Raises:
      UserError: the template is broken, or writes the beginning of a conversation otherwise when more follows.
    """
    if any(_MARK in message["content"] for message in messages):
        raise UserError("a message contains U+FDD0, which is no character", fix="remove it")
    parts: list[tuple[str, bool]] = []
    done = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        cue = render(template, messages[:number], is_answer_due=True)
        whole = render(template, messages[: number + 1], is_answer_due=False)
        for text, learnt in ((cue, False), (whole, True)):
            parts += [(part, learnt) for part in _split(_added(done, text))]
            done = text
    rest = render(template, messages, is_answer_due=False)
    return [*parts, *((part, False) for part in _split(_added(done, rest)))]


def prompt_parts(messages: Sequence[Message], template: str) -> list[str]:
    """The parts of the text of a conversation in which an answer is due; see `learnt_parts`."""
    if any(_MARK in message["content"] for message in messages):
        raise UserError("a message contains U+FDD0, which is no character", fix="remove it")
    return _split(render(template, messages, is_answer_due=True))


def is_end_of_text(part: str) -> bool:
    """Whether a part is the end-of-text token."""
    return part == _MARK


def _added(before: str, after: str) -> str:
    if not after.startswith(before):
        raise UserError(
            f"with more messages the chat template writes {after[: len(before)][-80:]!r}, not {before[-80:]!r}",
            where="template",
            fix="use one whose text only grows with the messages: what is to be learnt is found by that",
        )
    return after[len(before) :]


def _split(text: str) -> list[str]:
    texts = text.split(_MARK)
    return [part for text in texts for part in (text, _MARK)][:-1]


def render(
    template: str, messages: Sequence[Message], *, is_answer_due: bool, bos: str = _MARK, eos: str = _MARK
) -> str:
    """What a template, run in a sandbox, makes of a conversation; `bos` and `eos` are given to it as tokens' names.

    Raises:
      UserError: the template is broken, or refuses the conversation.
    """
    import jinja2

    try:
        return _compiled(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=is_answer_due,
            eos_token=eos,
            bos_token=bos,
        )
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template failed: {error}", where="template", fix="mend the template") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise UserError(f"the chat template refuses: {message}", where="template", fix="mend the conversation")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)
