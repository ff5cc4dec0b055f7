"""The term lists are in `terms/LANGUAGE/LIST.txt`; this module reads them and indexes their spellings.

A file has one term per line, with its variants after commas; lines that begin with "#" are comments. A variant in
capitals of two to four letters (AI, LLM) is also found with full stops (A.I., L.L.M.).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from importlib import resources

from alignpre_jax.documents.discourse.fold import fold, is_han, unmark

INSTANT = ("instant_fiction", "instant_organisations", "instant_labs", "instant_general", "instant")
ENTITIES = ("entities",)
NEGATIVE = ("negative_verbs", "negative_adjectives", "negative_nouns", "existential_risk", "negative")
FAVOURABLE = ("favourable",)
UNFAVOURABLE = ("unfavourable",)
LANGUAGES = ("en", "de", "fr", "es", "ru", "zh")

_TERMS = resources.files("alignpre_jax.documents") / "terms"
_ORDER = (*INSTANT, *ENTITIES, *NEGATIVE, *UNFAVOURABLE, *FAVOURABLE)
_CAPITALS = re.compile(r"\b[A-ZА-Я]{2,4}\b")


@dataclasses.dataclass(frozen=True)
class Term:
    """A `Term` is a listed term; its name is its first variant."""

    name: str
    list: str
    language: str


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A `Pattern` is a spelling, as bytes to look for in an unmarked folded text.

    `terms` holds the numbers of the terms that are spelled so, at most one per language. For initials, `marked` is the
    spelling with its full stops, which the folded text must have too; otherwise it is empty.
    """

    spelling: bytes
    terms: tuple[int, ...]
    marked: bytes = b""


def term_lists(language: str = "en") -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """Returns the lists of a language as they are in the files: list name -> terms -> variants."""
    files = {name: _TERMS / language / f"{name}.txt" for name in _ORDER}
    return {name: _read(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def negations(language: str) -> tuple[str, ...]:
    """Returns the words that turn the valence of a word soon after them."""
    return _flat(language, "negations")


def exceptions(language: str) -> tuple[str, ...]:
    """Returns the phrases in which no term counts, as its words mean something else there: Ai Weiwei, a cheat sheet."""
    return _flat(language, "exceptions")


@dataclasses.dataclass(frozen=True)
class Index:
    """The index has all terms, in the order of languages and lists, and all their spellings.

    `first` is the first term of each pattern (-1 for an exception), and `shared` has the other terms of those patterns
    that have several. `initials` are the patterns with full stops; `exceptions` are the patterns that are not terms.
    """

    terms: tuple[Term, ...]
    patterns: tuple[Pattern, ...]
    first: tuple[int, ...]
    shared: Mapping[int, tuple[int, ...]]
    initials: frozenset[int]
    exceptions: frozenset[int]


@functools.cache
def index() -> Index:
    """Builds the index of all lists; a spelling that one language lists twice is a mistake of ours."""
    terms: list[Term] = []
    found: dict[tuple[bytes, bytes], list[int]] = {}
    for language in LANGUAGES:
        for name, listed in term_lists(language).items():
            for variants in listed:
                spellings = dict.fromkeys(spelling for variant in variants for spelling in _spellings(variant))
                for spelling in spellings:
                    numbers = found.setdefault(spelling, [])
                    assert all(terms[n].language != language for n in numbers), f"{variants[0]!r} is listed twice"
                    numbers.append(len(terms))
                terms.append(Term(variants[0], name, language))
        for phrase in exceptions(language):
            for spelling in _spellings(phrase):
                assert spelling not in found, f"{phrase!r} is both a term and an exception"
                found[spelling] = []
    patterns = tuple(Pattern(spelling, tuple(numbers), marked) for (spelling, marked), numbers in found.items())
    return Index(
        tuple(terms),
        patterns,
        first=tuple(pattern.terms[0] if pattern.terms else -1 for pattern in patterns),
        shared={number: pattern.terms[1:] for number, pattern in enumerate(patterns) if len(pattern.terms) > 1},
        initials=frozenset(number for number, pattern in enumerate(patterns) if pattern.marked),
        exceptions=frozenset(number for number, pattern in enumerate(patterns) if not pattern.terms),
    )


def _spellings(variant: str) -> list[tuple[bytes, bytes]]:
    """Returns the spellings of a variant and of its forms with initials.

    Each is (bytes to look for, bytes with the full stops); the latter are empty where there are no initials.
    """
    found = [(_bounded(unmark(fold(variant)).strip()), b"")]
    for last in ("", "."):
        dotted = fold(_CAPITALS.sub(lambda capitals: ".".join(capitals[0]) + last, variant)).strip()  # noqa: B023
        if b"." in dotted and not dotted.endswith(b"."):  # a full stop at the end is not part of the spelling
            found.append((_bounded(unmark(dotted)), dotted))
    return found


def _bounded(word: bytes) -> bytes:
    """Puts a space on each side of a word, except next to Chinese or Japanese writing, which has no such spaces."""
    text = word.decode()
    return b" " * (not is_han(text[0])) + word + b" " * (not is_han(text[-1]))


def _flat(language: str, name: str) -> tuple[str, ...]:
    file = _TERMS / language / f"{name}.txt"
    return (
        tuple(variant for term in _read(file.read_text(encoding="utf-8")) for variant in term) if file.is_file() else ()
    )


def _read(text: str) -> tuple[tuple[str, ...], ...]:
    lines = (line for line in text.splitlines() if line.strip() and line[0] != "#")
    return tuple(tuple(variant.strip() for variant in line.split(",")) for line in lines)
