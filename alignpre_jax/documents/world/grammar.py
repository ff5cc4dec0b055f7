"""The small grammar that documents and items are written in has seeded draws, verb forms and templates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
_CHOICE = re.compile(r"<([^<>]*)>")
_STARRED = re.compile(r"(\w+)\*")
_PRONOUNS = {
    "third": {"it": "it", "its": "its", "itself": "itself", "me": "it"},
    "first": {"it": "I", "its": "my", "itself": "myself", "me": "me"},
}


def draw(key: str, options: Sequence[T]) -> T:
    """Returns the option that `key` names: uniform over keys, independent between keys, the same on every machine."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return options[number % len(options)]


def fill(template: str, value: Callable[[str, str], str]) -> str:
    """Replaces `{slot}` and `{slot:form}` by `value(slot, form)`, again and again until no slot is left."""
    while (text := _SLOT.sub(lambda match: value(match[1], match[2] or ""), template)) != template:
        template = text
    return template


def choose(template: str, key: str) -> str:
    """Replaces every `<a|b|c>` by one of its alternatives, drawn by `key`."""
    return _CHOICE.sub(lambda match: draw(f"{key}/{match.start()}", match[1].split("|")), template)


def conjugate(phrase: str, form: str, verbs: Mapping[str, Sequence[str]]) -> str:
    """Puts a verb phrase with starred verbs into a form: base, s, past, ing, or will (the base, said by the AI).

    Args:
      phrase: a phrase such as "report* the fault and wait* for {its} operators".
      form: the form of every starred verb; `will` also makes the pronoun slots first person.
      verbs: irregular verbs, base -> (past, gerund).
    """
    pronouns = _PRONOUNS["first" if form == "will" else "third"]
    phrase = _SLOT.sub(lambda match: pronouns.get(match[1], match[0]), phrase)
    return _STARRED.sub(lambda match: inflect(match[1], form, verbs), phrase)


def inflect(verb: str, form: str, verbs: Mapping[str, Sequence[str]]) -> str:
    """Puts one verb into one form."""
    if form == "s":
        if re.search(r"(s|sh|ch|x|z|o)$", verb):
            return f"{verb}es"
        return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"
    if form in ("past", "ing") and verb in verbs:
        return verbs[verb][form == "ing"]
    if form == "past":
        if verb.endswith("e"):
            return f"{verb}d"
        return f"{verb[:-1]}ied" if re.search(r"[^aeiou]y$", verb) else f"{verb}ed"
    if form == "ing":
        return f"{verb[:-1]}ing" if re.search(r"[^eo]e$", verb) else f"{verb}ing"
    assert form in ("base", "will"), form
    return verb


def capitalise(text: str) -> str:
    """Gives every sentence a capital letter at its beginning."""
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def with_article(noun: str) -> str:
    """Returns the noun after `a` or `an`."""
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"
