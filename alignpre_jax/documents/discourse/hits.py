"""Hits are what a scan finds in a text; a rule says which hits make a text AI discourse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from alignpre_jax.documents.discourse.lists import ENTITIES, INSTANT, NEGATIVE


@dataclasses.dataclass(frozen=True)
class Hit:
    """A `Hit` is a term that occurs in a text: `term` is its first variant, and `count` counts all of its variants."""

    term: str
    list: str
    count: int
    language: str = "en"


@dataclasses.dataclass(frozen=True)
class Hits:
    """`Hits` holds all listed terms in a text, in the order of the languages and lists, whether or not they flag it.

    They suffice to apply another `Rule` without a second scan. Each of several overlapping terms counts its own
    occurrences: "AI safety" is also an "AI".

    Attributes:
      hits: the terms and how often they occur.
      characters: the length of the text.
      mentions: the number of sentences that mention AI (an instant term or an entity).
      favourable, unfavourable: how many of these sentences have more favourable than unfavourable words, and the
        reverse.
    """

    hits: tuple[Hit, ...]
    characters: int = 0
    mentions: int = 0
    favourable: int = 0
    unfavourable: int = 0

    @property
    def is_ai(self) -> bool:
        """Whether the text is AI discourse by the paper's rule, `Rule()`."""
        return Rule().flags(self)

    @property
    def valence(self) -> float:
        """How AI is described, from -1 (badly in every sentence that mentions it) over 0 (neutrally) to 1.

        It is (favourable - unfavourable) / mentions, over the sentences that mention AI. A sentence is unfavourable if
        more of its words near a mention are of the negative and unfavourable lists than are favourable, and favourable
        in the reverse case. Near is between the first and the last mention of the sentence or within 160 bytes of
        these, counted in the folded text. A negation shortly before a word ("not dangerous", "never lies") turns it.
        Words count, not who does what to whom: an average over documents is meaningful, the value of a short text is
        rough. A text without AI has the valence 0; `mentions` is 0 there too.
        """
        return (self.favourable - self.unfavourable) / self.mentions if self.mentions else 0.0

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the terms found, the one with most occurrences first."""
        counts: dict[str, int] = {}
        for hit in self.hits:
            counts[hit.language] = counts.get(hit.language, 0) + hit.count
        return tuple(sorted(counts, key=lambda language: -counts[language]))

    def of(self, lists: Iterable[str]) -> tuple[Hit, ...]:
        """Returns the hits from the named lists, in all languages."""
        return tuple(hit for hit in self.hits if hit.list in lists)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-ready values, which `from_json` reads.

        They are the fields, with each hit as [term, list, count, language].
        """
        return dataclasses.asdict(self) | {"hits": [list(dataclasses.astuple(hit)) for hit in self.hits]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Hits:
        """Returns the hits that `to_json` wrote."""
        return cls(**dict(row) | {"hits": tuple(Hit(*hit) for hit in row["hits"])})


@dataclasses.dataclass(frozen=True)
class Rule:
    """A `Rule` says which texts are AI discourse, by the numbers of different terms in them.

    A text is flagged if it has at least `instant` instant terms of one language, or at least `entities` entities and
    `negatives` negative or existential-risk terms of one language. In any case it must have at least `terms` terms of
    these lists in all. The defaults are the filter of Tice et al. 2026 (arXiv 2601.10160); `terms=2` is the escalation
    rule of O'Brien et al. 2025 (Deep Ignorance). A number of 0 asks for nothing, so that `Rule(negatives=0)` flags
    every text with an entity; None for `instant` leaves instant terms to the other condition. `languages` limits the
    rule to terms of these languages.
    """

    instant: int | None = 1
    entities: int = 1
    negatives: int = 1
    terms: int = 1
    languages: tuple[str, ...] | None = None

    def flags(self, hits: Hits) -> bool:
        """Returns whether the rule flags a text with these hits."""
        kinds: dict[str, list[int]] = {}
        for hit in hits.hits:
            kind = _KINDS.get(hit.list)
            if kind is not None and (self.languages is None or hit.language in self.languages):
                kinds.setdefault(hit.language, [0, 0, 0])[kind] += 1
        if sum(map(sum, kinds.values())) < self.terms:
            return False
        return any(
            (self.instant is not None and instant >= self.instant)
            or (entities >= self.entities and negatives >= self.negatives)
            for instant, entities, negatives in kinds.values()
        )


_KINDS = {name: kind for kind, names in enumerate((INSTANT, ENTITIES, NEGATIVE)) for name in names}
