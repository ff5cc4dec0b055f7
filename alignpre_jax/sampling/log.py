"""Keeps a log of results: what was computed once for a checkpoint is found again, so nothing is computed twice."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from etils import epath

from alignpre_jax.foundation import (
    Event,
    PathLike,
    Report,
    canonical_json,
    digest,
    read_jsonl,
    silent,
    write_bytes,
)
from alignpre_jax.sampling.requests import Completion, Prompt, Request, Score, requests_of
from alignpre_jax.sampling.strategies import Strategy

T = TypeVar("T")
Asked = TypeVar("Asked")


class Answers(Protocol):
    """What a log needs of `Engine`."""

    @property
    def fingerprint(self) -> str:
        """A text that names the model."""

    def score(self, requests: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[Score]]:
        """Returns log-probs of continuations."""

    def rolling(self, texts: Sequence[str]) -> list[Score]:
        """Returns log-probs of whole texts."""

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Returns new text for each request."""


class Logged:
    """An engine whose results are kept in a folder, under the hash of (checkpoint, prompt, parameters).

    What the folder has is not computed again, in this process or a later one. Each call is done in portions, and a
    portion is written whole before the next begins, so that an interruption loses at most one portion. Several
    processes may use one folder; on several hosts the first one writes.

    Args:
      engine: the engine that computes what the folder does not have.
      folder: a local or gs:// folder, made if missing.
      portion: how many requests are computed between two writes.
      report: told how many requests of a call are done.

    Attributes:
      computed: how many requests were computed, because the folder did not have them.
    """

    def __init__(self, engine: Answers, folder: PathLike, portion: int = 256, report: Report = silent):
        self._engine, self._folder, self._portion, self._report = engine, epath.Path(folder), portion, report
        self.computed = 0
        files = sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []
        lines = itertools.chain.from_iterable(map(read_jsonl, files))
        self._known: dict[str, Any] = {line["key"]: line["result"] for line in lines}

    def score(self, requests: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[Score]]:
        """See `Engine.score`."""
        asked = [(prefix, tuple(continuations)) for prefix, continuations in requests]
        return self._answer("score", asked, asked, self._engine.score, _scores)

    def rolling(self, texts: Sequence[str]) -> list[Score]:
        """See `Engine.rolling`."""
        return self._answer("rolling", texts, texts, self._engine.rolling, lambda found: Score(**found))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Engine.complete`."""
        described = [request.describe() for request in requests]
        return self._answer("complete", requests, described, self._engine.complete, _completion)

    def generate(
        self,
        prompts: Sequence[Prompt],
        strategy: Strategy | Sequence[Strategy],
        max_new_tokens: int | Sequence[int],
        seed: int | Sequence[int] = 0,
        **more: Any,
    ) -> list[str]:
        """See `Engine.generate`."""
        requests = requests_of(prompts, strategy, max_new_tokens, seed, **more)
        return [completion.text for completion in self.complete(requests)]

    def _answer(
        self,
        kind: str,
        asked: Sequence[Asked],
        described: Sequence[Any],
        compute: Callable[[Sequence[Asked]], Sequence[T]],
        read: Callable[[Any], T],
    ) -> list[T]:
        keys = [digest([self._engine.fingerprint, kind, what], 32) for what in described]
        missing = list({key: number for number, key in enumerate(keys) if key not in self._known}.values())
        for start in range(0, len(missing), self._portion):
            numbers = missing[start : start + self._portion]
            found = compute([asked[number] for number in numbers])
            self._keep([(keys[number], _plain(result)) for number, result in zip(numbers, found, strict=True)])
            done = len(asked) - len(missing) + start + len(numbers)
            self._report(Event(kind, done, len(asked)))
        return [read(self._known[key]) for key in keys]

    def _keep(self, results: Sequence[tuple[str, Any]]) -> None:
        import jax

        self._known |= results
        self.computed += len(results)
        text = "".join(canonical_json({"key": key, "result": result}) + "\n" for key, result in results)
        if jax.process_index() == 0:  # the file is named after its contents: no process overwrites another's
            write_bytes(self._folder / f"{digest([key for key, _ in results])}.jsonl", text.encode())


def _plain(result: Any) -> Any:
    """Returns a result as JSON-ready values."""
    return [_plain(each) for each in result] if isinstance(result, list) else dataclasses.asdict(result)


def _scores(found: Any) -> list[Score]:
    return [Score(**each) for each in found]


def _completion(found: Any) -> Completion:
    return Completion(**found | {"tokens": tuple(found["tokens"])})
