"""Runs one engine on several hosts: the first process drives, and the others do the same work with it.

if jax.process_index():
    follow(engine)
else:
    with Led(engine) as led:
        led.score(...)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from alignpre_jax.foundation import UserError, build, canonical_json
from alignpre_jax.sampling.engine import Engine
from alignpre_jax.sampling.requests import Completion, Prompt, Request, Score

_PAGE = 1 << 12  # messages are padded to this many bytes, or 2, 4, 8 ... times as many, so that they have few shapes


class Led:
    """The engine of the first process, which tells the others each call before it makes it.

    It is a context manager; when it is left, `follow` returns in the other processes. `Logged` can be put around it.
    """

    def __init__(self, engine: Engine):
        assert jax.process_index() == 0
        self._engine = engine
        self.tokenizer, self.template = engine.tokenizer, engine.template

    @property
    def fingerprint(self) -> str:
        """See `Engine.fingerprint`."""
        return self._call("fingerprint", None)

    def score(self, requests: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[Score]]:
        """See `Engine.score`."""
        return self._call("score", [(prefix, tuple(some)) for prefix, some in requests])

    def rolling(self, texts: Sequence[str]) -> list[Score]:
        """See `Engine.rolling`."""
        return self._call("rolling", list(texts))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Engine.complete`."""
        return self._call("complete", [request.describe() for request in requests])

    def __enter__(self) -> Led:
        return self

    def __exit__(self, *_: object) -> None:
        _exchange({"call": "leave"})

    def _call(self, name: str, asked: Any) -> Any:
        return _do(self._engine, _exchange({"call": name, "asked": asked}))


def follow(engine: Engine) -> None:
    """Does what the first process does, until the first process leaves its `Led`."""
    while (message := _exchange(None))["call"] != "leave":
        try:
            _do(engine, message)
        except UserError:  # the first process has raised the same, and says so
            continue


def _do(engine: Engine, message: dict[str, Any]) -> Any:
    asked: Any = message.get("asked")
    match message["call"]:
        case "fingerprint":
            return engine.fingerprint
        case "score":
            return engine.score([(tuple(p) if isinstance(p, list) else p, tuple(some)) for p, some in asked])
        case "rolling":
            return engine.rolling(asked)
        case "complete":
            return engine.complete([build(Request, values, where="request") for values in asked])
    raise AssertionError(message["call"])


def _exchange(message: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the first process's message in every process.

    It has been through JSON even in the first process, so that all of them work from the same values.
    """
    data = canonical_json(message).encode() if message is not None else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    room = _PAGE
    while room < size:
        room *= 2
    page = np.zeros(room, np.uint8)
    page[: len(data)] = np.frombuffer(data, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(page))[:size]))
