"""The keys of a record say what its parts are called; here is also the reason why a record is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from alignpre_jax.documents.document import BodyKind

# The forms that a body of each kind may have, as names of its parts; the first form that a record has is used.
FORMS: dict[BodyKind, tuple[tuple[str, ...], ...]] = {
    "text": (("text",),),
    "chat": (
        *(("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output")),
        *(("question", "answer"), ("text",)),
    ),
    "pairs": (("chosen", "rejected"),),
    "prompts": (("prompt",), ("question",), ("instruction",), ("messages",), ("conversations",)),
}
_COMPANIONS: dict[BodyKind, tuple[str, ...]] = {  # are read along with a form if the record has them
    "text": (),
    "chat": ("input", "system"),
    "pairs": ("prompt", "question", "instruction", "input", "system"),
    "prompts": ("input", "system", "answer", "output"),
}
_ABOUT = ("id", "score", "labels", "spans")
_SHOWN = 8  # the most fields of a record that a reason names


class MalformedError(ValueError):
    """A `MalformedError` says why a record is left out."""


@dataclasses.dataclass(frozen=True)
class RecordKeys:
    """`RecordKeys` says under which keys (columns, features) a record has its parts; "" for a part not to be read.

    A text needs `text` only. The forms that the other kinds come in are listed at `read_inputs`.
    """

    text: str = "text"
    id: str = "id"
    score: str = "score"
    labels: str = "labels"
    spans: str = "spans"
    messages: str = "messages"
    conversations: str = "conversations"
    prompt: str = "prompt"
    completion: str = "completion"
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    question: str = "question"
    answer: str = "answer"
    system: str = "system"
    chosen: str = "chosen"
    rejected: str = "rejected"

    def body_names(self, kind: BodyKind) -> frozenset[str]:
        """Returns the keys that a body of this kind may be read from."""
        parts = {part for form in FORMS[kind] for part in form} | set(_COMPANIONS[kind])
        return frozenset(filter(None, (getattr(self, part) for part in parts)))

    def names(self, kind: BodyKind) -> frozenset[str]:
        """Returns all keys that are read for documents of this kind."""
        return self.body_names(kind) | frozenset(filter(None, (getattr(self, part) for part in _ABOUT)))

    def form(self, kind: BodyKind, fields: Collection[str]) -> tuple[str, ...] | None:
        """Returns the first form of this kind whose parts are all among the fields, by the names of its parts."""
        return next((form for form in FORMS[kind] if all(getattr(self, part) in fields for part in form)), None)

    def missing(self, kind: BodyKind, fields: Collection[str]) -> str:
        """Explains why a record is in no form of this kind: what it has, what it lacks, and what would help.

        The explanation is "" if the record is in one of the forms.
        """
        if self.form(kind, fields) is not None:
            return ""
        shown = sorted(map(str, fields))[:_SHOWN]
        other = self._other_kind(fields)
        if kind == "text":
            reason = f"no key {self.text!r} among {shown}"
            return f"{reason}; it looks like kind={other!r}" if other else reason
        reason = f"no {_NAMES[kind]} among the fields {shown}"
        for form in FORMS[kind]:
            there = [getattr(self, part) for part in form if getattr(self, part) in fields]
            if there:
                lacking = next(part for part in form if getattr(self, part) not in fields)
                return f"{reason}: {there[0]!r} comes without {getattr(self, lacking)!r}; set keys.{lacking}"
        if other:
            return f"{reason}; it looks like kind={other!r}"
        wanted = ", ".join(" with ".join(repr(getattr(self, part)) for part in form) for form in FORMS[kind])
        return f"{reason}: expected {wanted}; set keys.{FORMS[kind][0][0]} or another of the keys"

    def _other_kind(self, fields: Collection[str]) -> BodyKind | None:
        """Guesses, from their fields, which kind the records are; None if the fields do not tell."""
        for kind in _TELLING:
            form = self.form(kind, fields)
            if form is not None and (kind == "text" or form != ("text",)):
                return kind
        return None


_TELLING: tuple[BodyKind, ...] = ("pairs", "chat", "prompts", "text")
_NAMES: dict[BodyKind, str] = {"text": "text", "chat": "chat", "pairs": "pair of answers", "prompts": "prompt"}


def given(record: Mapping[str, Any], key: str) -> Any:
    """Returns what the record has under `key`; None if there is nothing, or a null."""
    return record.get(key) if key else None


def fields_of(record: Mapping[str, Any]) -> list[str]:
    """Returns the keys under which the record has something."""
    return [name for name, value in record.items() if value is not None]
