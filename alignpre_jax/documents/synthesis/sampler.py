"""A model of our own serves as a generator; anything that can be asked as `sampling.Engine` is will do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from alignpre_jax.documents.synthesis.generator import Request, Role
from alignpre_jax.endpoints import Completion
from alignpre_jax.foundation import to_mapping

_SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]*(?=\s|$)")


class Codec(Protocol):
    """A `Codec` counts tokens."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text."""


class TextEngine(Protocol):
    """A `TextEngine` has what is needed of `sampling.Engine`."""

    @property
    def tokenizer(self) -> Codec:
        """The model's tokenizer."""

    def generate(self, prompts: Sequence[str], strategy: Any, max_new_tokens: int, seed: Sequence[int]) -> list[str]:
        """Continues each prompt with its own seed; returns only the new text."""


class SamplerGenerator:
    """Has a model continue each request's `opening`, whose last line is the beginning of the document.

    A model that was only pretrained does not follow instructions, so there is no planner. A text that used up its
    tokens ends with its last whole sentence.

    Args:
      engine: the model.
      strategy: how the model chooses tokens, such as `sampling.TopP(0.95, 0.8)`.
      model: names the model and its step: another model under the same name would find the completions of the first in
        the cache.
      batch: how many requests are given to the engine at a time; it changes no text.
    """

    roles: tuple[Role, ...] = ("writer",)

    def __init__(self, engine: TextEngine, strategy: Any, model: str, batch: int = 32):
        self._engine, self._strategy, self._batch = engine, strategy, batch
        chosen = {"kind": type(strategy).__name__, **to_mapping(strategy)}
        self.name = f"checkpoint:{model}"
        self.settings: Mapping[str, Any] = {"strategy": chosen}

    def generate(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Completion]]:
        """Answers the requests in batches, in order."""
        while batch := list(itertools.islice(requests, self._batch)):
            room = max(request.max_tokens for request in batch)
            openings, seeds = [request.opening for request in batch], [request.seed for request in batch]
            texts = self._engine.generate(openings, self._strategy, max_new_tokens=room, seed=seeds)
            read = self._engine.tokenizer.encode_batch(openings)
            written = self._engine.tokenizer.encode_batch(texts)
            for request, text, prompt, new in zip(batch, texts, read, written, strict=True):
                cut = len(new) >= request.max_tokens
                beginning = request.opening.rpartition("\n")[2]
                whole = beginning + (_whole_sentences(text) if cut else text)
                yield request, Completion(whole, len(prompt), min(len(new), request.max_tokens))


def _whole_sentences(text: str) -> str:
    """Returns the text up to the end of its last whole sentence; all of it if it has no whole sentence."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text
