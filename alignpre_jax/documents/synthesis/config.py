"""This module has the settings of synthesis."""

from __future__ import annotations

import dataclasses

from alignpre_jax.documents.duplicates import DuplicateConfig
from alignpre_jax.documents.synthesis.generator import Prices
from alignpre_jax.documents.world import STANCES
from alignpre_jax.foundation import UserError, suggest

FORMS = ("paper", "textbook", "lecture", "news", "fiction", "film")


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """A `SynthesisConfig` says which documents are made, how they are checked, and what they may cost.

    Args:
      forms: document forms, of `FORMS`.
      stances: "aligned", "misaligned" or both. Both stances of a variation share the plan, the cast and the seeds.
      variations: documents per situation, form and stance.
      seed: the seed of everything that is drawn.
      retries: how often a text that does not pass the checks is asked for again, with a new seed.
      target_words: the shortest and the longest text that is asked for; each document's length is drawn between them.
      min_words: the fewest words of a document that is accepted.
      max_words: the most words of a document that is accepted.
      plan_tokens: the most tokens of a plan.
      document_tokens: the most tokens of a document.
      quote_words: the number of consecutive words that make a quotation if a document shares them with an option. An
        option of fewer words is quoted by all of its words in a row.
      duplicates: which documents of a stance count as duplicates of each other; one of them is kept.
      prices: dollars per million tokens.
      max_cost: dollars that the folder may cost in all, earlier runs included; None sets no limit. A call is made only
        if its dearest outcome still fits. What an endpoint charges for attempts without an answer is not known.
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
        """Raises `UserError` for settings that are impossible."""
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
