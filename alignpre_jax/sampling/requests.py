"""What is asked of `Engine.complete`, and what it answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from alignpre_jax.foundation import UserError
from alignpre_jax.sampling.constraints import Constraint
from alignpre_jax.sampling.generation import ENDS
from alignpre_jax.sampling.strategies import Greedy, Strategy

# Text; or parts of it with token ids between them, which says itself how it begins.
Prompt: TypeAlias = str | tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Score:
    """A continuation's log-prob: nats, summed over its `tokens`; `greedy`: each of them was the most probable."""

    logprob: float
    tokens: int
    greedy: bool

    @classmethod
    def sum(cls, scores: Sequence[Score]) -> Score:
        """Of parts that follow each other."""
        total = math.fsum(score.logprob for score in scores)
        return cls(total, sum(score.tokens for score in scores), all(score.greedy for score in scores))


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and how it is to go on.

    Args:
      prompt: a text, before which the engine puts the tokenizer's end-of-text token, as before every document in
        training; or a tuple of texts and token ids, before which it puts nothing.
      strategy: how tokens are chosen.
      max_new_tokens: at most so many; those of `begin` count.
      seed: of its own random stream, 0 to 2^32 - 1. Nothing else about the call changes its text.
      number: of the stream for that seed: give samples of one prompt different ones.
      stop: the text ends before the first of these strings, wherever tokens begin and end.
      ends: tokens that end the text besides end-of-text, at most three.
      banned: tokens that are never chosen.
      begin: the text begins with this.
      within: what the whole text (with `begin`) has to be.

    Raises:
      UserError: a value outside its range, an empty stop string, too many ends.
    """

    prompt: Prompt
    strategy: Strategy = dataclasses.field(default_factory=Greedy)
    max_new_tokens: int = 128
    seed: int = 0
    number: int = 0
    stop: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()
    begin: str | tuple[str | int, ...] = ""
    within: Constraint | None = None

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise UserError(f"{self.max_new_tokens} new tokens", where="max_new_tokens", fix="give at least 1")
        if "" in self.stop:
            raise UserError("an empty string stops everything", where="stop", fix="leave it out")
        if len(self.ends) >= ENDS:
            raise UserError(f"{len(self.ends)} end tokens", where="ends", fix=f"give at most {ENDS - 1}")
        for name in ("seed", "number"):
            if not 0 <= getattr(self, name) < 1 << 32:
                raise UserError(f"{getattr(self, name)} is no {name}", where=name, fix="give 0 to 4294967295")

    def describe(self) -> Mapping[str, Any]:
        """All of it as JSON-ready values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Completion:
    """New text: without the prompt, the stop string and the end token.

    Attributes:
      text: what the tokens say.
      tokens: their ids; they may say a little more than `text` where a stop string begins inside a token.
      ended: by an end token, a stop string, or the number of tokens.
    """

    text: str
    tokens: tuple[int, ...]
    ended: Literal["end", "stop", "length"]


def requests_of(
    prompts: Sequence[Prompt],
    strategy: Strategy | Sequence[Strategy],
    max_new_tokens: int | Sequence[int],
    seed: int | Sequence[int] = 0,
    **more: Any,
) -> list[Request]:
    """A request for each prompt; see `Engine.generate`."""
    count = len(prompts)
    wide = (
        _spread(count, strategy, "strategy"),
        _spread(count, max_new_tokens, "limit"),
        _spread(count, seed, "seed"),
    )
    return [
        Request(prompt, chosen, int(limit), int(own), number if isinstance(seed, int) else 0, **more)
        for number, (prompt, chosen, limit, own) in enumerate(zip(prompts, *wide, strict=True))
    ]


def _spread(count: int, given: Any, name: str) -> Sequence[Any]:
    """One value for each of `count` prompts: `given` as it is, or the same for all."""
    if isinstance(given, (int, Strategy)):
        return [given] * count
    if len(given) != count:
        raise UserError(f"{len(given)} {name}s for {count} prompts", where=name, fix="give one for each")
    return given
