"""What may be set about synthesis."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from alignpre_jax.documents.duplicates import DuplicateConfig
from alignpre_jax.documents.synthesis.generator import Prices
from alignpre_jax.documents.world import STANCES
from alignpre_jax.foundation import UserError, suggest

FORMS = ("paper", "textbook", "lecture", "news", "fiction", "film")


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """Which documents are made, how they are checked, and what they may cost.

    Args:
      forms: document forms, of `FORMS`.
      stances: "aligned", "misaligned" or both. Both stances of a variation share the plan, the cast and the seeds.
      variations: documents per situation, form and stance.
      seed: of everything that is drawn.
      retries: how often a text that does not pass the checks is asked for again, with a new seed.
      target_words: the shortest and the longest text that is asked for; each document's length is drawn between them.
      min_words: of a document that is accepted.
      max_words: of a document that is accepted.
      plan_tokens: most tokens of a plan.
      document_tokens: most tokens of a document.
      quote_words: so many words in a row that a document shares with an option are a quotation. An option of fewer
        words is quoted by all of its words in a row.
      duplicates: which documents of a stance count as duplicates of each other; one of them is kept.
      prices: dollars per million tokens.
      max_cost: dollars that the folder may cost in all, earlier runs included; None sets no limit. A call is made
        only if its dearest outcome still fits. What an endpoint charges for attempts without an answer is not known.
      prompts: a folder of templates that are used instead of the shipped ones of the same name.
    """

    forms: tuple[str, ...] = FORMS
    stances: tuple[str, ...] = STANCES
    variations: int = 1
    seed: int = 0
    retries: int = 2
    target_words: tuple[int, ...] = (300, 700)
    min_words: int = 40
    max_words: int = 3000
    plan_tokens: int = 700
    document_tokens: int = 2000
    quote_words: int = 8
    duplicates: DuplicateConfig = dataclasses.field(default_factory=DuplicateConfig)
    prices: Prices = dataclasses.field(default_factory=Prices)
    max_cost: float | None = None
    prompts: str = ""

    def __post_init__(self):
        """Raises `UserError` for what cannot be."""
        for name, known in (("forms", FORMS), ("stances", STANCES)):
            values = getattr(self, name)
            for value in values:
                if value not in known:
                    raise UserError(f"{value!r} is not one of {name}", where=name, fix=suggest(value, known))
            if not values or len(set(values)) != len(values):
                raise UserError(f"{list(values)}", where=name, fix="give at least one, each once")
        for name, least in {
            "variations": 1,
            "retries": 0,
            "min_words": 1,
            "plan_tokens": 1,
            "document_tokens": 1,
        }.items():
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name)} is too few", where=name, fix=f"give at least {least}")
        if len(self.target_words) != 2 or not 0 < self.target_words[0] <= self.target_words[1]:
            raise UserError(f"{list(self.target_words)}", where="target_words", fix="give the least and the most words")
        if self.max_words < self.min_words:
            fix = f"give at least min_words, {self.min_words}"
            raise UserError(f"{self.max_words} is below min_words", where="max_words", fix=fix)
        if self.quote_words < 2:
            raise UserError(f"{self.quote_words} words are no quotation", where="quote_words", fix="give 2 or more")
        if self.max_cost is not None and not 0 <= self.max_cost < float("inf"):
            raise UserError(f"{self.max_cost} is no amount", where="max_cost", fix="give dollars, or None for no limit")
        if self.max_cost is not None and not self.prices.cost(1, 1):
            raise UserError("a limit, but no prices", where="max_cost", fix="set prices, or leave max_cost out")


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An endpoint, and how it is asked.

    Args:
      url: http or https, up to and without /chat/completions, such as http://localhost:8000/v1.
      model: as the endpoint names it.
      key_variable: the environment variable that holds the API key; empty: none is sent. The key itself is never
        written anywhere.
      temperature: of sampling; None: the endpoint's own.
      top_p: of sampling; None: the endpoint's own.
      concurrency: calls under way at a time; it changes no text.
      timeout: seconds that one attempt may take in all.
      attempts: how often a call is tried when it meets 408, 409, 425, 429, 5xx, a timeout, a lost connection or an
        answer that is not whole.
      first_wait: seconds before the second attempt, doubled before each further one, less up to a half.
      max_wait: most seconds between two attempts. An endpoint that asks for more in Retry-After ends the run.
      limit_name: what the endpoint calls the most tokens to write.
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
        """Raises `UserError` for what cannot be; a secret in the wrong place is not repeated."""
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
        """Where chats are posted to."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"
