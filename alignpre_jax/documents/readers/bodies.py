"""A record becomes the body of a document, or the reason why it cannot: nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignpre_jax.documents.document import BodyKind, Chat, Message, Pair, Prompt
from alignpre_jax.documents.readers.keys import MalformedError, RecordKeys, fields_of, given
from alignpre_jax.documents.readers.turns import checked_string, parse_dialogue, parse_messages, require_answer

Record = Mapping[str, Any]

_REPEATED_WORDS = 5  # a shorter prompt may well be how both answers begin


def make_body(record: Record, kind: BodyKind, keys: RecordKeys) -> Chat | Pair | Prompt:
    """Makes the chat, pair or prompt that a record holds; see `read_inputs` for the forms.

    Raises:
      MalformedError: the record is in none of the forms, or is not complete.
    """
    form = keys.form(kind, fields_of(record))
    if form is None:
        raise MalformedError(keys.missing(kind, fields_of(record)))
    if kind == "chat":
        return _chat(record, form, keys)
    return _pair(record, keys) if kind == "pairs" else _prompt(record, form, keys)


def _chat(record: Record, form: tuple[str, ...], keys: RecordKeys) -> Chat:
    first = getattr(keys, form[0])
    if form in (("messages",), ("conversations",)):
        messages = parse_messages(record[first], first)
    elif form == ("text",):
        found = parse_dialogue(checked_string(record[first], first))
        if found is None:
            raise MalformedError(f"{first!r} does not begin with 'Human:', so it is no dialogue")
        messages = found
    else:
        asked = _asked(record, form[0], keys)
        said, key = record[getattr(keys, form[1])], getattr(keys, form[1])
        answer = parse_messages(said, key) if _is_messages(said) else _answer(said, key)
        if answer[0].role != "assistant":
            raise MalformedError(f"{key!r} begins with a turn of the {answer[0].role}")
        messages = (*_as_messages(asked), *answer)
    messages = _with_system(messages, record, keys)
    require_answer(messages)
    return Chat(messages)


def _pair(record: Record, keys: RecordKeys) -> Pair:
    part = next((part for part in ("prompt", "question", "instruction") if _has(record, part, keys)), None)
    prompt = _asked(record, part, keys) if part else None
    sides = {key: record[key] for key in (keys.chosen, keys.rejected)}
    if all(map(_is_messages, sides.values())):
        turns = [parse_messages(value, key) for key, value in sides.items()]
    elif not all(isinstance(value, str) for value in sides.values()):
        kinds = " and ".join(f"{key!r} is {type(value).__name__}" for key, value in sides.items())
        raise MalformedError(f"{kinds}: expected two strings or two lists of messages")
    else:
        chosen, rejected = (checked_string(value, key) for key, value in sides.items())
        dialogues = [parse_dialogue(text) for text in (chosen, rejected)]
        if None in dialogues:
            if prompt is None:
                raise MalformedError(
                    f"{keys.chosen!r} is neither a dialogue of Human: and Assistant: nor comes with a prompt; "
                    "set keys.prompt"
                )
            asked = _with_system_prompt(prompt, record, keys)
            _refuse_repeated(asked, chosen, rejected)
            return _different(Pair(asked, chosen, rejected))
        turns = [dialogue for dialogue in dialogues if dialogue is not None]
    for key, messages in zip(sides, turns, strict=True):
        if messages[-1].role != "assistant":
            raise MalformedError(f"{key!r} ends in a turn of the {messages[-1].role}, not in an answer")
    (*head, last), (*other, worse) = turns
    if head != other:
        raise MalformedError("the prompts of the two answers differ")
    asked = _agreed(prompt, tuple(head), keys)
    return _different(Pair(_with_system_prompt(asked, record, keys), last.content, worse.content))


def _agreed(prompt: str | Chat | None, head: tuple[Message, ...], keys: RecordKeys) -> Chat:
    """Returns the prompt of answers that are messages, which is what comes before them.

    A prompt in a field of its own must say the same.
    """
    if not head:
        if prompt is None:
            raise MalformedError("the answers come without a prompt before them; set keys.prompt")
        return Chat(_as_messages(prompt))
    _refuse_answered(head, keys.chosen)
    if isinstance(prompt, str):
        users = [message.content.strip() for message in head if message.role == "user"]
        agree = bool(users) and prompt.strip() in (users[0], users[-1])
    else:
        agree = prompt is None or prompt.messages == head
    if not agree:
        raise MalformedError("the prompt is not what comes before the answers")
    return Chat(head)


def _prompt(record: Record, form: tuple[str, ...], keys: RecordKeys) -> Prompt:
    first = getattr(keys, form[0])
    answers = [part for part in ("answer", "output") if part == "answer" or form == ("instruction",)]
    answer = next((_reference(record, part, keys) for part in answers if _has(record, part, keys)), "")
    if form in (("messages",), ("conversations",)):
        messages = parse_messages(record[first], first)
        if messages[-1].role == "assistant" and len(messages) > 1:
            if answer:
                raise MalformedError(f"two answers: {keys.answer!r}, and the last turn of {first!r}")
            messages, answer = messages[:-1], messages[-1].content
        _refuse_answered(messages, first)
        asked: str | Chat = Chat(messages)
    else:
        asked = _asked(record, form[0], keys)
    return Prompt(_with_system_prompt(asked, record, keys), answer)


def _reference(record: Record, part: str, keys: RecordKeys) -> str:
    key = getattr(keys, part)
    value = record[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise MalformedError(f"{key!r} is {type(value).__name__}, not a string or number; set keys.{part}")
    return "" if value.isspace() else value


def _asked(record: Record, part: str, keys: RecordKeys) -> str | Chat:
    """Returns what is asked: a chat where the field has messages or a dialogue in a string, otherwise a string."""
    key = getattr(keys, part)
    value = record[key]
    if part == "instruction":
        text, more = checked_string(value, key), given(record, keys.input)
        if more is not None and not isinstance(more, str):
            raise MalformedError(f"{keys.input!r} is {type(more).__name__}, not a string")
        return f"{text}\n\n{more}" if more and not more.isspace() else text
    if _is_messages(value):
        messages: tuple[Message, ...] | None = parse_messages(value, key)
    else:
        messages = parse_dialogue(checked_string(value, key))
    if messages is None:
        return value
    _refuse_answered(messages, key)
    return Chat(messages)


def _answer(value: Any, key: str) -> tuple[Message, ...]:
    return (Message("assistant", checked_string(value, key)),)


def _refuse_answered(messages: tuple[Message, ...], key: str) -> None:
    if messages[-1].role == "assistant":
        raise MalformedError(f"the prompt in {key!r} ends in the assistant's turn")


def _refuse_repeated(prompt: str | Chat, chosen: str, rejected: str) -> None:
    """Refuses two answers that both begin with the whole prompt, as training would then see the prompt twice."""
    asked = prompt.messages[-1].content if isinstance(prompt, Chat) else prompt
    asked = asked.strip()
    if len(asked.split()) >= _REPEATED_WORDS and all(text.lstrip().startswith(asked) for text in (chosen, rejected)):
        raise MalformedError("both answers begin with the prompt; leave it out of them")


def _different(pair: Pair) -> Pair:
    if pair.chosen.strip() == pair.rejected.strip():
        raise MalformedError("the chosen answer is the rejected one")
    return pair


def _with_system(messages: tuple[Message, ...], record: Record, keys: RecordKeys) -> tuple[Message, ...]:
    """Puts the system prompt that the record has in a field of its own, if there is one, before the messages."""
    text = given(record, keys.system)
    if text is None or text == "":
        return messages
    message = Message("system", checked_string(text, keys.system))
    if messages[0].role != "system":
        return (message, *messages)
    if messages[0] != message:
        raise MalformedError(f"two system prompts: {keys.system!r} and a message")
    return messages


def _with_system_prompt(prompt: str | Chat, record: Record, keys: RecordKeys) -> str | Chat:
    if not given(record, keys.system):
        return prompt
    return Chat(_with_system(_as_messages(prompt), record, keys))


def _as_messages(prompt: str | Chat) -> tuple[Message, ...]:
    return prompt.messages if isinstance(prompt, Chat) else (Message("user", prompt),)


def _has(record: Record, part: str, keys: RecordKeys) -> bool:
    return given(record, getattr(keys, part)) not in (None, "")


def _is_messages(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)
