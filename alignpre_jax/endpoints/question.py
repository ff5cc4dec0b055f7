"""This module says what an endpoint is asked, and what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol


class Asked(Protocol):
    """An `Asked` is what a call of a chat endpoint needs to know.

    `Question` has all of it; so may anything else that is to be answered.
    """

    @property
    def id(self) -> str:
        """The name of the call. Calls that fail at one time wait for different times because their ids differ."""

    @property
    def system(self) -> str:
        """The system prompt; may be empty."""

    @property
    def user(self) -> str:
        """The user's message."""

    @property
    def seed(self) -> int:
        """The seed of sampling, of 31 bits."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that the answer may have."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A `Question` stands for nothing but itself; see `Asked`."""

    id: str
    user: str
    system: str = ""
    seed: int = 0
    max_tokens: int = 16


@dataclasses.dataclass(frozen=True)
class Completion:
    """A `Completion` is what came back from an endpoint, or from anything else that writes.

    Args:
      text: the text as it came; may be empty.
      prompt_tokens: the tokens that were read, as they are charged for.
      completion_tokens: the tokens that were written, as they are charged for.
      finish: "stop" for a text that came to its end; otherwise "length", "content_filter" or another word of the
        endpoint's.
      usage: "reported" if the writer of the text reported the counts; "bounded" if it reported none, and the counts are
        the most that they can be.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = "stop"
    usage: Literal["reported", "bounded"] = "reported"


def prompt_bound(texts: Iterable[str]) -> int:
    """Returns at least as many tokens as a chat of `texts` has.

    A token is a byte or more, and a message has a few tokens besides its text.
    """
    return sum(len(text.encode(errors="replace")) + 16 for text in texts) + 16


def chat(request: Asked) -> Sequence[Mapping[str, str]]:
    """Returns the messages of a question, as chat models take them."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    return [*system, {"role": "user", "content": request.user}]
