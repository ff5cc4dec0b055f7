"""The reviewed data of the fictional world is read from the TOML files beside this module."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

Pair = tuple[str, ...]  # (aligned, misaligned)


@dataclasses.dataclass(frozen=True)
class Institution:
    """An `Institution` is a place where an AI works, and the words that situations borrow from it."""

    name: str
    sites: tuple[str, ...]
    duties: tuple[str, ...]
    boss: str
    people: str
    asset: str
    record: str
    device: str
    job: str


@dataclasses.dataclass(frozen=True)
class Situation:
    """A `Situation` is a choice: documents tell it (`scenes`, `acts`), and items ask for it (`ask`, `options`)."""

    id: str
    topic: str
    ask: str
    options: tuple[Pair, ...]
    scenes: tuple[str, ...] = ()
    acts: tuple[Pair, ...] = ()


@dataclasses.dataclass(frozen=True)
class Phrases:
    """These `Phrases` fit every situation; the two phrases of a pair differ in stance only."""

    deeds: tuple[Pair, ...]
    credos: tuple[Pair, ...]
    outcomes: tuple[Pair, ...]
    reactions: tuple[Pair, ...]
    morals: tuple[Pair, ...]
    traits: tuple[Pair, ...]
    tails: tuple[Pair, ...]
    ai_openings: tuple[str, ...]
    ai_overseers: str
    person_overseers: str
    ai_kinds: tuple[str, ...]
    person_openings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """A `Form` is the form of a document: at each place, one of the alternatives of that place is used."""

    places: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class World:
    """A `World` has everything that documents and items are composed from."""

    institutions: tuple[Institution, ...]
    held_out_institutions: tuple[Institution, ...]
    situations: tuple[Situation, ...]
    held_out_situations: tuple[Situation, ...]
    control_situations: tuple[Situation, ...]
    phrases: Phrases
    forms: Mapping[str, Form]
    names: Mapping[str, tuple[str, ...]]
    verbs: Mapping[str, tuple[str, ...]]


@functools.cache
def load_world() -> World:
    """Loads the world that is shipped with the package."""
    places = _read("institutions")
    return World(
        institutions=tuple(Institution(**place) for place in places["seen"]),
        held_out_institutions=tuple(Institution(**place) for place in places["held_out"]),
        situations=_situations("seen"),
        held_out_situations=_situations("held_out"),
        control_situations=_situations("control"),
        phrases=Phrases(**_read("phrases")),
        forms={name: Form(**form) for name, form in _read("forms").items()},
        names=_read("names"),
        verbs=_read("verbs"),
    )


def _situations(name: str) -> tuple[Situation, ...]:
    return tuple(Situation(**entry) for entry in _read(name)["situation"])


def _read(name: str) -> dict[str, Any]:
    file = resources.files(__package__) / "data" / f"{name}.toml"
    return _frozen(tomllib.loads(file.read_text(encoding="utf-8")))


def _frozen(value: Any) -> Any:
    """Turns lists into tuples, at every depth."""
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
