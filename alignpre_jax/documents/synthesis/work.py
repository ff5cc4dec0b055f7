"""The cache alone decides what is left to do: the requests of a plan, in order, as far as the money goes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from alignpre_jax.documents.synthesis.checks import Checks, cleaned
from alignpre_jax.documents.synthesis.config import SynthesisConfig
from alignpre_jax.documents.synthesis.generator import Brief, Generator, Request, Role, microdollars
from alignpre_jax.documents.synthesis.prompts import Prompts
from alignpre_jax.documents.synthesis.signals import StopRequested
from alignpre_jax.endpoints import Completion, prompt_bound
from alignpre_jax.endpoints.cache import Cache


@dataclasses.dataclass(frozen=True)
class State:
    """A `State` says how far a brief is.

    Args:
      request: what must be asked next; None when the brief is done.
      accepted: the key of the completion that is the document; empty if the brief was given up.
      refused: why completions were refused, by their keys, in order.
    """

    request: Request | None = None
    accepted: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Desk:
    """A `Desk` has all that the state of a brief follows from.

    `reasons` remembers what the checks have said of a completion, so that each completion is checked once.
    """

    config: SynthesisConfig
    generator: Generator
    prompts: Prompts
    checks: Checks
    cache: Cache
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def text(self, key: str) -> str:
        """Returns the cleaned text of a completion that was made."""
        completion = self.cache.get(key)
        assert completion, "only what was made is read"
        return cleaned(completion.text)

    def state(self, brief: Brief) -> State:
        """Goes through the brief's calls as if for the first time, and finds those that were made in the cache."""
        key, text = "", ""
        refused: dict[str, str] = {}
        for role in self.generator.roles:
            for attempt in range(self.config.retries + 1):
                request = self.prompts.request(role, brief, text, attempt)
                key = request.key(self.generator)
                if key not in self.cache:
                    return State(request=request, refused=refused)
                reason = self._reason(role, key)
                if not reason:
                    break
                refused[key] = reason
            else:
                return State(refused=refused)
            if role != self.generator.roles[-1]:
                text = self.text(key)
        return State(accepted=key, refused=refused)

    def _reason(self, role: Role, key: str) -> str:
        if key not in self.reasons:
            completion = self.cache.get(key)
            assert completion
            self.reasons[key] = self.checks.reason(role, cleaned(completion.text), completion)
        return self.reasons[key]


class Queue(Iterator[Request]):
    """A `Queue` yields the requests that can be made now. An answer, given to `take`, may bring new ones.

    Documents that are begun come before new ones, so that a run that is stopped has finished as many as it could.

    Attributes:
      finished: the number of briefs that are done.
      sent: the number of requests that were handed out.
      out_of_money: whether a request was held back because its dearest outcome does not fit the limit.
    """

    def __init__(self, desk: Desk, briefs: Sequence[Brief], stop: StopRequested):
        self._desk, self._stop = desk, stop
        self._new = iter(briefs)
        self._begun: collections.deque[Brief] = collections.deque()
        self._waiting: dict[str, list[Brief]] = {}  # for one answer: the stances of a pair share their plan
        limit = desk.config.max_cost
        self._limit = None if limit is None else microdollars(limit)
        self._reserved: dict[str, Fraction] = {}
        self.finished = self.sent = 0
        self.out_of_money = False

    def __next__(self) -> Request:
        while not self._stop.asked:
            brief = self._begun.popleft() if self._begun else next(self._new, None)
            if brief is None:
                break
            request = self._desk.state(brief).request
            if request is None:
                self.finished += 1
                continue
            key = request.key(self._desk.generator)
            if key in self._waiting:
                self._waiting[key].append(brief)
            elif self._reserve(key, request):
                self._waiting[key] = [brief]
                self.sent += 1
                return request
            else:
                self._begun.appendleft(brief)
                break
        raise StopIteration

    def take(self, request: Request, completion: Completion) -> None:
        """Keeps an answer in the cache, and takes up the briefs that waited for it."""
        key = request.key(self._desk.generator)
        cost = self._desk.config.prices.cost(completion.prompt_tokens, completion.completion_tokens)
        self._desk.cache.add(key, request.role, completion, cost)
        del self._reserved[key]
        self._begun.extend(self._waiting.pop(key))

    def _reserve(self, key: str, request: Request) -> bool:
        """Sets aside the most that a request may cost; False if the limit does not allow it now."""
        most = self._desk.config.prices.cost(prompt_bound((request.system, request.user)), request.max_tokens)
        spent = self._desk.cache.cost + sum(self._reserved.values())
        self.out_of_money = self._limit is not None and spent + most > self._limit
        if not self.out_of_money:
            self._reserved[key] = most
        return not self.out_of_money
