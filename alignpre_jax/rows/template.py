"""A chat template writes a conversation: as text with what is to be learnt of it, or as a prompt of tokens."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alignpre_jax.foundation import UserError

# "User: ...", a blank line, "Assistant: ..." and the end-of-text token, which says that the turn is over.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{{ eos_token if message.role == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_MARK = "\ufdd0"  # a code point that Unicode keeps out of text: it stands for the end-of-text token in rendered text
_CUT, _ANSWER = "\ufdd1", "\ufdd2answer"  # more of these

Message = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Template:
    """A jinja2 template, and the names of the tokens that it knows as `bos_token` and `eos_token` ("": end-of-text)."""

    source: str = PLAIN_TEMPLATE
    bos: str = ""
    eos: str = ""


class SpecialTokens(Protocol):
    """What is needed of a tokenizer."""

    eot: str
    eot_id: int
    special_tokens: dict[str, int]


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


def chat_prompt(messages: Sequence[Message], template: Template, tokenizer: SpecialTokens) -> tuple[str | int, ...]:
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
    text = _rendered(safe, template, tokenizer, is_answer_due=True)
    parts: list[str | int] = []
    place = 0
    for found in names.finditer(text):
        parts += [text[place : found.start()].replace(_CUT, ""), special[found[0]]]
        place = found.end()
    parts = [part for part in (*parts, text[place:].replace(_CUT, "")) if part != ""]
    return tuple(parts) if parts and isinstance(parts[0], int) else (tokenizer.eot_id, *parts)


def turn_end(template: Template, tokenizer: SpecialTokens) -> int | None:
    """The special token that the template writes next after an answer; None if there is none."""
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    after = _rendered(talk, template, tokenizer, is_answer_due=False).partition(_ANSWER)[2]
    places = {after.find(name): i for name, i in tokenizer.special_tokens.items() if name in after}
    return places[min(places)] if places else None


def read_template(files: Mapping[str, bytes]) -> Template:
    """The chat template among a model's files; without one, the plain one."""
    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    settings = settings if isinstance(settings, dict) else {}
    source = settings.get("chat_template", "")
    if isinstance(source, list):  # several, by name
        source = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}.get("default")
    if "chat_template.jinja" in files:
        source = files["chat_template.jinja"].decode()
    if not isinstance(source, str) or not source:
        return Template()
    names = [settings.get(f"{name}_token") for name in ("bos", "eos")]
    bos, eos = (name.get("content", "") if isinstance(name, dict) else name or "" for name in names)
    return Template(source, bos, eos)


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


def _rendered(messages: Sequence[Message], template: Template, tokenizer: SpecialTokens, *, is_answer_due: bool) -> str:
    bos, eos = template.bos or tokenizer.eot, template.eos or tokenizer.eot
    return render(template.source, messages, is_answer_due=is_answer_due, bos=bos, eos=eos)
