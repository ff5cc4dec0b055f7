"""This module says which endpoint is asked, and how."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An `EndpointConfig` names an endpoint and says how it is asked.

    Args:
      url: http or https, up to and without /chat/completions, such as http://localhost:8000/v1.
      model: the model's name, as the endpoint names it.
      key_variable: the environment variable that holds the API key; if empty, no key is sent. The key itself is never
        written anywhere.
      temperature: the temperature of sampling; None leaves it to the endpoint.
      top_p: the nucleus of sampling; None leaves it to the endpoint.
      concurrency: how many calls are under way at a time; it changes no text.
      timeout: seconds that one attempt may take in all.
      attempts: how often a call is tried when it meets 408, 409, 425, 429, 5xx, a timeout, a lost connection or an
        answer that is not whole.
      first_wait: seconds before the second attempt, doubled before each further one, less up to a half.
      max_wait: the most seconds between two attempts. An endpoint that asks for more in Retry-After ends the run.
      limit_name: the endpoint's name for the most tokens to write.
      extra: further keys of the request's body.
    """

    url: str
    model: str
    key_variable: str = ""
    temperature: float | None = 1.0
    top_p: float | None = None
    concurrency: int = 8
    timeout: float = 180.0
    attempts: int = 6
    first_wait: float = 1.0
    max_wait: float = 300.0
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises `UserError` for settings that are impossible; a secret in the wrong place is not repeated."""
        try:
            parts = urlsplit(self.url)
            reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            reachable = False
        if not reachable or not (self.url.isascii() and self.url.isprintable()) or " " in self.url:
            what = "this is no way to an endpoint"
            raise UserError(what, where="url", fix="give a URL that begins with http:// or https://")
        if parts.username or parts.password or parts.query or parts.fragment:
            what = "the URL has a user, a query or a fragment, where secrets leak into files"
            raise UserError(what, where="url", fix="give the plain URL, and the key by key_variable")
        if not self.model:
            raise UserError("no model", where="model", fix="name the model as the endpoint does")
        if self.key_variable and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable, re.ASCII):
            what = "this is not the name of an environment variable"
            raise UserError(
                what, where="key_variable", fix="give the variable's name, such as OPENAI_API_KEY, not the key"
            )
        for name in ("concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is too few", where=name, fix="give at least 1")
        for name in ("timeout", "first_wait", "max_wait"):
            if not 0 < getattr(self, name) < 10**6:
                raise UserError(f"{getattr(self, name)} is no length of time", where=name, fix="give seconds")
        taken = {"model", "messages", "seed", "temperature", "top_p", "stream", "n", self.limit_name} & set(self.extra)
        if taken:
            raise UserError(f"{min(taken)!r} is set already", where=f"extra.{min(taken)}", fix="leave it out of extra")

    @property
    def chat_url(self) -> str:
        """The URL that chats are posted to."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"
