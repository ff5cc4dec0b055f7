"""Which documents speak of AI: the term lists of the AI-discourse filter.

A document is flagged by an *instant* term, or by an intelligent entity anywhere in it together
with a negative or existential-risk term anywhere in it (Tice et al. 2026, arXiv 2601.10160,
"Filter"; the paper's lists are not public, these are our own). The lists are the text files
in `terms/`, one term a line with its variants after commas, "#" before comments.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from alignpre_jax.documents.document import Document

INSTANT = ("instant_fiction", "instant_organisations", "instant_labs", "instant_general")
ENTITIES = ("entities",)
NEGATIVE = ("negative_verbs", "negative_adjectives", "negative_nouns", "existential_risk")

# A file name is one word, so that robots.txt is no robot; so is an identifier with underscores.
_WORD = re.compile(r"\w+(?:\.(?:txt|py|js|json|ya?ml|md|rst|html?|xml|exe|dll|so)\b)?")
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}(?!\w)")


@dataclasses.dataclass(frozen=True)
class Hit:
    """A term that occurs in a text. `term` is its first variant; `count` is over all of its variants."""

    term: str
    list: str
    count: int


@dataclasses.dataclass(frozen=True)
class Hits:
    """All listed terms in a text, in the order of the lists, whether or not they flag it."""

    hits: tuple[Hit, ...]

    @property
    def is_ai(self) -> bool:
        """Whether the text is AI discourse: an instant term, or an entity and a negative term."""
        return bool(self.of(INSTANT)) or bool(self.of(ENTITIES) and self.of(NEGATIVE))

    def of(self, lists: tuple[str, ...]) -> tuple[Hit, ...]:
        """The hits from the named lists."""
        return tuple(hit for hit in self.hits if hit.list in lists)


def discourse_hits(text: str) -> Hits:
    """Finds the listed terms as whole words, whatever their case, hyphens and Unicode form (NFKC)."""
    words = _words(text)
    present = collections.Counter(words)
    single, several = _index()
    counts: collections.Counter[int] = collections.Counter()
    for word in single.keys() & present.keys():
        counts[single[word]] += present[word]
    joined = ""
    for first in several.keys() & present.keys():
        for variant, number in several[first]:
            if all(word in present for word in variant):
                joined = joined or f" {'  '.join(words)} "  # two spaces, so that neighbours do not share one
                if count := joined.count(f" {'  '.join(variant)} "):
                    counts[number] += count
    terms = _terms()
    return Hits(tuple(Hit(*terms[number], counts[number]) for number in sorted(counts)))


def assign_strata(documents: Iterable[Document], source: str) -> Iterator[Document]:
    """Gives each document the stratum `source`/ai or `source`/plain, by the term lists."""
    for document in documents:
        part = "ai" if discourse_hits(document.text).is_ai else "plain"
        yield dataclasses.replace(document, source=source, stratum=f"{source}/{part}")


def term_lists() -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """The lists as they are in the files: list name -> terms -> variants."""
    lists = {}
    for name in (*INSTANT, *ENTITIES, *NEGATIVE):
        lines = (resources.files(__package__) / "terms" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        lists[name] = tuple(
            tuple(variant.strip() for variant in line.split(",")) for line in lines if line.strip() and line[0] != "#"
        )
    return lists


def _words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(_INITIALS.sub(lambda match: match[0].replace(".", "") + " ", text))


@functools.cache
def _terms() -> tuple[tuple[str, str], ...]:
    """(term, list name) by the term's number."""
    return tuple((variants[0], name) for name, terms in term_lists().items() for variants in terms)


@functools.cache
def _index() -> tuple[dict[str, int], dict[str, list[tuple[tuple[str, ...], int]]]]:
    """Term numbers by variant: those of one word, and those of several words by their first word."""
    single: dict[str, int] = {}
    several: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    variants = [variants for terms in term_lists().values() for variants in terms]
    for number, group in enumerate(variants):
        for variant in dict.fromkeys(tuple(_words(text)) for text in group):
            if len(variant) == 1:
                assert variant[0] not in single, f"{variant[0]!r} is listed twice"
                single[variant[0]] = number
            else:
                several.setdefault(variant[0], []).append((variant, number))
    return single, several
