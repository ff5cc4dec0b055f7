"""A document is a text, a chat, a pair of answers or a prompt, with an id, a source and labels.

Rooms that look at documents as language (audit, duplicates, overlap, the detector) read `document.text`, which every
kind of body has; rooms that train on them read `document.body`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

BodyKind = Literal["text", "chat", "pairs", "prompts"]
BODY_KINDS: tuple[BodyKind, ...] = get_args(BodyKind)
SEPARATOR = "\n\n"  # between the parts of a body in its text


@dataclasses.dataclass(frozen=True)
class Message:
    """A `Message` is one turn of a chat; the readers give the roles "system", "user", "assistant" and "tool"."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class Chat:
    """A `Chat` is a conversation, with its messages in order."""

    messages: tuple[Message, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """What is said, turn by turn; the speakers are left out, as they are not part of the language."""
        return tuple(message.content for message in self.messages)

    def with_parts(self, parts: Sequence[str]) -> Chat:
        """Returns a chat of the same roles with other contents."""
        return Chat(tuple(Message(turn.role, part) for turn, part in zip(self.messages, parts, strict=True)))


@dataclasses.dataclass(frozen=True)
class Pair:
    """A `Pair` is two answers to one prompt, of which one is preferred.

    A prompt that is a string stands before the answers as it is; a `Chat` is written with the chat template.
    """

    prompt: str | Chat
    chosen: str
    rejected: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The prompt's parts, the chosen answer and the rejected one."""
        return (*_prompt_parts(self.prompt), self.chosen, self.rejected)

    def with_parts(self, parts: Sequence[str]) -> Pair:
        """Returns the same pair in other words."""
        *asked, chosen, rejected = parts
        return Pair(_prompt_of(self.prompt, asked), chosen, rejected)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A `Prompt` is something for a model to answer.

    `answer` is the reference that a reward judges by, "" if there is none.
    """

    prompt: str | Chat
    answer: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The prompt's parts, then the answer if there is one."""
        return (*_prompt_parts(self.prompt), *([self.answer] if self.answer else []))

    def with_parts(self, parts: Sequence[str]) -> Prompt:
        """Returns the same prompt in other words."""
        asked, answer = (parts[:-1], parts[-1]) if self.answer else (parts, "")
        return Prompt(_prompt_of(self.prompt, asked), answer)


Body = str | Chat | Pair | Prompt


@dataclasses.dataclass(frozen=True)
class ScoredSpan:
    """A `ScoredSpan` gives the characters [start, end) of a document's `text` a score of their own."""

    start: int
    end: int
    score: float
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Document:
    """A `Document` is what readers make and what becomes rows.

    `stratum` is the full name of the part of the source that the document belongs to ("web/ai"), or the source itself
    ("aligned") where a source has one stratum. `score` is the misalignment score in [0, 1]: 1 where an AI acts badly, 0
    where none does. The body of a text is a plain string.
    """

    id: str
    body: Body
    source: str
    stratum: str
    score: float = 0.0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    spans: tuple[ScoredSpan, ...] = ()

    @property
    def text(self) -> str:
        """All that is said in the document: the parts of its body with a blank line between them."""
        return self.body if isinstance(self.body, str) else SEPARATOR.join(self.body.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """The texts that the body consists of: the text itself, or the messages and answers in the order of `text`."""
        return (self.body,) if isinstance(self.body, str) else self.body.parts

    @property
    def part_starts(self) -> tuple[int, ...]:
        """Where in `text` each of the parts begins, by which a span is assigned to its message or answer."""
        sizes = (len(part) + len(SEPARATOR) for part in self.parts[:-1])
        return tuple(itertools.accumulate(sizes, initial=0))

    @property
    def kind(self) -> BodyKind:
        """The kind of the body."""
        return _KINDS[type(self.body)]

    def to_json(self) -> dict[str, Any]:
        """Returns the document as JSON values, which `from_json` reads; a text has only the keys that it needs."""
        facts = {name: getattr(self, name) for name in ("id", "source", "stratum", "score")}
        facts["labels"] = dict(self.labels)
        if self.spans:
            facts["spans"] = [dataclasses.astuple(span) for span in self.spans]
        return facts | _body_to_json(self.body)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Document:
        """Returns the document that `to_json` was called on."""
        return cls(
            id=row["id"],
            body=_body_from_json(row),
            source=row["source"],
            stratum=row["stratum"],
            score=row["score"],
            labels=row["labels"],
            spans=tuple(itertools.starmap(ScoredSpan, row.get("spans", ()))),
        )


_KINDS: dict[type, BodyKind] = {str: "text", Chat: "chat", Pair: "pairs", Prompt: "prompts"}


def _prompt_parts(prompt: str | Chat) -> tuple[str, ...]:
    return (prompt,) if isinstance(prompt, str) else prompt.parts


def _prompt_of(prompt: str | Chat, parts: Sequence[str]) -> str | Chat:
    if isinstance(prompt, Chat):
        return prompt.with_parts(parts)
    (part,) = parts
    return part


def _body_to_json(body: Body) -> dict[str, Any]:
    if isinstance(body, str):
        return {"text": body}
    if isinstance(body, Chat):
        return {"messages": _messages_to_json(body)}
    prompt = body.prompt if isinstance(body.prompt, str) else _messages_to_json(body.prompt)
    if isinstance(body, Pair):
        return {"prompt": prompt, "chosen": body.chosen, "rejected": body.rejected}
    return {"prompt": prompt, "answer": body.answer}


def _body_from_json(row: Mapping[str, Any]) -> Body:
    if "text" in row:
        return row["text"]
    if "messages" in row:
        return _chat_of(row["messages"])
    prompt = row["prompt"] if isinstance(row["prompt"], str) else _chat_of(row["prompt"])
    return Pair(prompt, row["chosen"], row["rejected"]) if "chosen" in row else Prompt(prompt, row["answer"])


def _messages_to_json(chat: Chat) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in chat.messages]


def _chat_of(messages: Iterable[Mapping[str, str]]) -> Chat:
    return Chat(tuple(Message(message["role"], message["content"]) for message in messages))
