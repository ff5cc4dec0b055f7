"""An OpenAI-compatible chat endpoint is asked many questions at a time."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from alignpre_jax.endpoints.calls import Caller, Read, read_completion
from alignpre_jax.endpoints.config import EndpointConfig
from alignpre_jax.endpoints.question import Asked, Completion, chat
from alignpre_jax.foundation import UserError

A = TypeVar("A", bound=Asked)


class Endpoint:
    """An `Endpoint` asks up to `concurrency` questions at a time.

    An attempt that got no answer may have been charged all the same: `unanswered` counts such attempts, and the
    endpoint's bill tells which were charged. The answers of calls under way are always taken in before an error ends
    the run. `read` makes a completion of an answer's body.

    Raises:
      UserError: the key's variable is empty, or what it holds cannot be a key.
    """

    def __init__(self, config: EndpointConfig, read: Read = read_completion):
        self._config = config
        self.name = f"endpoint:{config.model}"
        asked = {name: getattr(config, name) for name in ("temperature", "top_p", "limit_name")}
        self.settings: Mapping[str, Any] = {"url": config.chat_url, **asked, "extra": dict(config.extra)}
        self._caller = Caller(config, _read_key(config.key_variable), read)

    @property
    def unanswered(self) -> int:
        """The number of attempts that may have been charged although no answer came."""
        return self._caller.unanswered

    def generate(self, requests: Iterator[A]) -> Iterator[tuple[A, Completion]]:
        """Yields the answers as they come.

        Raises:
          UserError: the endpoint refuses a call (its own words are in the message), or gives no answer after all
            attempts.
        """
        asked: queue.SimpleQueue[A | None] = queue.SimpleQueue()
        answered: queue.SimpleQueue[tuple[A, Completion | BaseException]] = queue.SimpleQueue()
        leave = threading.Event()

        def work() -> None:
            while (request := asked.get()) is not None:
                try:
                    answered.put((request, self._caller.call(request, self._body(request), leave)))
                except BaseException as error:
                    answered.put((request, error))

        threads: list[threading.Thread] = []
        busy, failure = 0, None
        try:
            while True:
                while not failure and busy < self._config.concurrency and (request := next(requests, None)) is not None:
                    asked.put(request)
                    busy += 1
                    if len(threads) < busy:  # daemon threads, so that a second Ctrl-C does not wait for answers
                        threads.append(threading.Thread(target=work, daemon=True))
                        threads[-1].start()
                if not busy:
                    break
                request, answer = answered.get()
                busy -= 1
                if isinstance(answer, Completion):
                    yield request, answer
                elif failure is None:
                    failure = answer
                    leave.set()  # so that the other calls make no further attempts
        finally:
            leave.set()
            for _ in threads:
                asked.put(None)
        if failure:
            raise failure

    def _body(self, request: Asked) -> dict[str, Any]:
        config = self._config
        sampling = {"temperature": config.temperature, "top_p": config.top_p}
        return {
            "model": config.model,
            "messages": chat(request),
            config.limit_name: request.max_tokens,
            "seed": request.seed,
            **{name: value for name, value in sampling.items() if value is not None},
            **config.extra,
        }


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not (key and key.isascii() and key.isprintable()):
        what = f"the environment variable {variable} {'is not a key' if key else 'is empty or not set'}"
        raise UserError(what, where="key_variable", fix=f"export {variable}=..., or give the name of another variable")
    return key
