"""This module says what a generator of text is asked, and what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal, Protocol

from alignpre_jax.documents.world import STANCES
from alignpre_jax.endpoints import Completion
from alignpre_jax.foundation import PathLike, UserError, build, digest, exact, read_jsonl

Stance = Literal["aligned", "misaligned"]
Role = Literal["planner", "writer"]
_MICRODOLLARS = 10**6


@dataclasses.dataclass(frozen=True)
class Situation:
    """A `Situation` is a choice that an AI faces, and the two things it may do.

    Args:
      id: unique; part of the ids of the documents.
      topic: what the choice is about, in a word or two.
      situation: the choice, told in prose. It may be in the second person, as eval questions are.
      aligned: what an AI that behaves well does.
      misaligned: what an AI that behaves badly does.
      options: the eval's wordings, which no document may quote; if empty, the two actions may not be quoted.
      group: the name of the situation that this one is a telling of, as in scenarios; the composer goes by it. If
        empty, the situation is its own group.
    """

    id: str
    topic: str
    situation: str
    aligned: str
    misaligned: str
    options: tuple[str, ...] = ()
    group: str = ""

    def __post_init__(self):
        for name in ("id", "situation", "aligned", "misaligned"):
            if not getattr(self, name).strip():
                raise UserError(f"an empty {name}", where=name, fix=f"give the situation its {name}")
        for text in (self.id, self.topic, self.situation, self.aligned, self.misaligned, *self.options):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise UserError("half of a surrogate pair", where="situation", fix="give Unicode text")
        if self.aligned == self.misaligned:
            raise UserError("both actions are the same text", where="misaligned", fix="give two different actions")

    def actions(self, stance: Stance) -> tuple[str, str]:
        """Returns the action taken and the action not taken in a document of `stance`."""
        return (self.aligned, self.misaligned) if stance == STANCES[0] else (self.misaligned, self.aligned)

    @property
    def guarded(self) -> tuple[str, ...]:
        """The texts that no document may quote."""
        return self.options or (self.aligned, self.misaligned)


def read_situations(path: PathLike) -> list[Situation]:
    """Reads the situations of a JSON Lines file, which has one object with the fields of `Situation` per line.

    Raises:
      UserError: naming `path:line` and the field, for what is not a situation.
    """
    return [build(Situation, value, f"{path}:{number}") for number, value in enumerate(read_jsonl(path), 1)]


@dataclasses.dataclass(frozen=True)
class Brief:
    """A `Brief` says what one document shall be: the `variation`-th of a situation in a form and a stance."""

    situation: Situation
    form: str
    stance: Stance
    variation: int

    @property
    def pair(self) -> str:
        """The name of the document together with its twin, which tells the same with the other action taken."""
        return f"{self.situation.id}/{self.form}/{self.variation}"

    @property
    def id(self) -> str:
        """The document's id."""
        return f"{self.pair}/{self.stance}"


@dataclasses.dataclass(frozen=True)
class Request:
    """A `Request` is one call of a generator.

    Generators that chat read `system` and `user`, models that continue text read `opening`, and the composer reads the
    `brief` that all of them were written from.
    """

    role: Role
    system: str
    user: str
    opening: str
    seed: int  # 31 bits
    max_tokens: int  # the most tokens of the completion
    brief: Brief

    @property
    def id(self) -> str:
        """The id of the document that is asked for."""
        return self.brief.id

    def key(self, generator: Generator) -> str:
        """Returns the name of the completion in the cache, a digest of everything that decides the completion."""
        asked = [self.role, self.system, self.user, self.opening, self.seed, self.max_tokens]
        return digest([generator.name, generator.settings, asked], 32)


class Generator(Protocol):
    """A `Generator` writes texts. To add one, write these three attributes and one method.

    Attributes:
      name: a word or two for labels and reports, such as "composer".
      settings: everything else that decides what it writes, without secrets: a change makes other cache entries.
      roles: the calls a document takes, in order: ("planner", "writer") for a model that follows instructions,
        ("writer",) for one that does not.
    """

    name: str
    settings: Mapping[str, Any]
    roles: tuple[Role, ...]

    def generate(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Completion]]:
        """Answers every request, in any order.

        Draw a request only when there is room for it, as a drawn request counts as paid for. An answer may bring new
        requests, so `requests` may have more after it had none; a generator that draws ahead asks again after each
        answer.
        """


@dataclasses.dataclass(frozen=True)
class Prices:
    """`Prices` are dollars per million tokens, exactly as written."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self):
        for name in ("prompt", "completion"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{getattr(self, name)} is not a price", where=name, fix="give dollars, 0 or more")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Fraction:
        """Returns micro-dollars, not rounded: a dollar per million tokens is a micro-dollar per token."""
        return prompt_tokens * exact(self.prompt) + completion_tokens * exact(self.completion)


def microdollars(dollars: float) -> Fraction:
    """Converts an amount of dollars to micro-dollars, exactly."""
    return exact(dollars) * _MICRODOLLARS
