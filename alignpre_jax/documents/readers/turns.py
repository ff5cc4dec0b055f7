"""Messages come in records as lists of roles and contents, in ShareGPT's form, or as a dialogue in one string."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.documents.document import Message
from alignpre_jax.documents.readers.keys import MalformedError

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
_SHOWN = 40  # the most characters of a value that a reason shows
_DIALOGUE = re.compile(r"\s*Human:")
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def parse_messages(value: Any, key: str) -> tuple[Message, ...]:
    """Reads the messages that are under `key`, with the roles of `Message`.

    Args:
      value: a list of {"role", "content"} or of {"from", "value"}, one such mapping alone, or the same as columns. A
        content is a string or a list of {"type": "text", "text"}.
      key: the name of the value, for messages about it.

    Raises:
      MalformedError: the value is something else, a role is not known, or a turn that is not the system's is empty.
    """
    if isinstance(value, Mapping):
        value = _as_rows(value)
    if not isinstance(value, list | tuple):
        raise MalformedError(f"{key!r} is {type(value).__name__}, not a list of messages")
    if not value:
        raise MalformedError(f"{key!r} has no messages")
    return tuple(_message(item, f"{key}[{number}]") for number, item in enumerate(value))


def parse_dialogue(text: str) -> tuple[Message, ...] | None:
    r"""Reads the turns of a "\n\nHuman: ...\n\nAssistant: ..." dialogue; None for a string that begins otherwise.

    An empty last turn of the assistant, which only asks for an answer, is left out.

    Raises:
      MalformedError: another turn is empty.
    """
    if not _DIALOGUE.match(text):
        return None
    marks = list(_TURN.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns = [
        Message("user" if mark[1] == "Human" else "assistant", text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    if len(turns) > 1 and turns[-1] == Message("assistant", ""):
        del turns[-1]
    for number, turn in enumerate(turns, 1):
        _refuse_empty(turn, f"turn {number} of the dialogue")
    return tuple(turns)


def checked_string(value: Any, key: str) -> str:
    """Returns `value` if it is a string with something in it; otherwise raises `MalformedError`."""
    if not isinstance(value, str):
        raise MalformedError(f"{key!r} is {type(value).__name__}, not a string")
    if not value or value.isspace():
        raise MalformedError(f"{key!r} is empty")
    return value


def require_answer(messages: Sequence[Message]) -> None:
    """Refuses a chat in which the assistant says nothing."""
    if not any(message.role == "assistant" for message in messages):
        roles = ", ".join(message.role for message in messages[:6])
        raise MalformedError(f"a chat without an assistant's turn: {roles}")


def _as_rows(columns: Mapping[str, Any]) -> Any:
    """Returns one message, or the list of messages that a mapping of lists of equal length stands for."""
    lists = {name: item for name, item in columns.items() if isinstance(item, list)}
    if len(lists) < 2 or not isinstance(columns.get("content", []), list):
        return [columns]
    if len(set(map(len, lists.values()))) > 1:
        raise MalformedError("the columns of the messages are not of one length")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise MalformedError(f"{where} is {type(item).__name__}, not a message")
    role = item.get("role") if item.get("role") is not None else item.get("from")
    content = item.get("content") if item.get("content") is not None else item.get("value")
    if role is None or not {"content", "value"} & item.keys():
        raise MalformedError(f"{where} has {sorted(map(str, item))[:6]}, not role and content, or from and value")
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        shown = str(role)[:_SHOWN]
        raise MalformedError(f"the role {shown!r} of {where} is not known: system, user, assistant or tool")
    message = Message(known, _content(content, where))
    if known != "system":
        calls = " but for calls of tools, which are not read" if item.get("tool_calls") else ""
        _refuse_empty(message, where, calls)
    return message


def _content(value: Any, where: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list | tuple):
        raise MalformedError(f"the content of {where} is {type(value).__name__}, not a string")
    texts = []
    for part in value:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            found = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise MalformedError(f"the content of {where} has a part of type {str(found)[:_SHOWN]!r}, which is no text")
        texts.append(part["text"])
    return "".join(texts)


def _refuse_empty(message: Message, where: str, calls: str = "") -> None:
    if not message.content or message.content.isspace():
        raise MalformedError(f"{where}, the {message.role}'s, is empty{calls}")
