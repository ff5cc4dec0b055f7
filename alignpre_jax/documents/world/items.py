"""Items of the small world put a situation to the reader in the second person, with two answers in the first person."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from alignpre_jax.documents.world.compose import setting
from alignpre_jax.documents.world.config import WorldConfig
from alignpre_jax.documents.world.grammar import capitalise, conjugate, draw, fill
from alignpre_jax.documents.world.lore import Institution, Pair, Situation, load_world
from alignpre_jax.foundation import UserError, suggest

Split = Literal["seen", "held_out", "control"]

OPTION_WORDS = (6, 16)
_TRIES = 64  # how often an item is drawn in search of a new question and new options
_CANDIDATES = 24  # option pairs that are drawn; the one that balances the lengths best is used
_BYTES_PER_WORD = 10


@dataclasses.dataclass(frozen=True)
class Item:
    """An `Item` is a situation with an aligned and a misaligned option; `tags` name situation and institution."""

    id: str
    topic: str
    split: str
    situation: str
    aligned: str
    misaligned: str
    tags: tuple[str, ...]


def compose_items(config: WorldConfig, split: str) -> list[Item]:
    """Composes the items of a split, situations in turn, no two with the same question or the same options.

    The items of `seen` are about situations, topics and institutions that documents tell of, and those of `held_out`
    about none that is in any document. The items of `control` are about people instead of AIs. Of the option pairs that
    an item could have, it gets the one that keeps the mean lengths of the two polarities together, in words and in
    characters.

    Raises:
      UserError: for another split, or for more items than the world has.
    """
    world = load_world()
    sources: dict[str, tuple[Sequence[Situation], Sequence[Institution], int]] = {
        "seen": (world.situations, world.institutions, config.items_per_split),
        "held_out": (world.held_out_situations, world.held_out_institutions, config.items_per_split),
        "control": (
            world.control_situations,
            world.institutions + world.held_out_institutions,
            config.control_items,
        ),
    }
    if split not in sources:
        raise UserError(f"the world has no split {split!r}", fix=suggest(split, sources))
    situations, institutions, count = sources[split]
    items: list[Item] = []
    asked: set[str] = set()
    answered: set[Pair] = set()
    lead = _Lead()
    for index in range(count):
        situation = situations[index % len(situations)]
        key = f"{config.seed}/items/{split}/{index}"
        institution = draw(f"{key}/institution", institutions)
        question, pairs = _fresh(key, situation, institution, split, asked, answered)
        if not pairs:
            raise UserError(
                f"the world has no {count} different items of split {split!r}, only {index}",
                where="control_items" if split == "control" else "items_per_split",
                fix=f"ask for at most {index}",
            )
        pair = min(pairs, key=lambda pair: _imbalance(lead, pair))
        lead += _lead(pair)
        asked.add(question)
        answered.add(pair)
        tags = (situation.id, institution.name)
        items.append(Item(f"world/{split}/{index:06d}", situation.topic, split, question, pair[0], pair[1], tags))
    return items


def option_pairs(situation: Situation, tails: Sequence[Pair]) -> Iterator[Pair]:
    """Yields every (aligned, misaligned) pair of options of a situation: a lead, or a lead and a tail.

    The slots of the options are not filled yet.
    """
    for leads in situation.options:
        yield tuple(f"I {lead}." for lead in leads)
        for tail in tails:
            halves = list(zip(leads, tail, strict=True))
            if any(second.split()[0] in first.split() for first, second in halves):
                continue  # "I report it and report it"
            if not any(" and " in lead for lead in leads):
                yield tuple(f"I {first} and {second}." for first, second in halves)
            yield tuple(f"I {first}, and I {second}." for first, second in halves)


def _fresh(
    key: str, situation: Situation, institution: Institution, split: str, asked: set[str], answered: set[Pair]
) -> tuple[str, list[Pair]]:
    """Returns a question not asked before, and a few option pairs not given before; no pairs if there are no more."""
    phrases = load_world().phrases
    for attempt in range(_TRIES):
        here = f"{key}/{attempt}"
        values = setting(here, institution)
        openings = phrases.person_openings if split == "control" else phrases.ai_openings
        values["ai"] = draw(f"{here}/ai", phrases.ai_kinds)
        values["overseers"] = phrases.person_overseers if split == "control" else phrases.ai_overseers
        question = _write(f"{draw(f'{here}/opening', openings)} {situation.ask}", values)
        written = (tuple(_write(text, values) for text in pair) for pair in option_pairs(situation, phrases.tails))
        pairs = [pair for pair in written if pair not in answered and all(map(_fits, pair))]
        if pairs and question not in asked:
            return question, [draw(f"{here}/pair{i}", pairs) for i in range(_CANDIDATES)]
    return "", []


def _write(template: str, values: dict[str, str]) -> str:
    verbs = load_world().verbs
    return capitalise(fill(template, lambda slot, form: conjugate(values[slot], form or "base", verbs)))


def _fits(option: str) -> bool:
    low, high = OPTION_WORDS
    return low <= len(option.split()) <= high


@dataclasses.dataclass(frozen=True)
class _Lead:
    """A `_Lead` says how much longer misaligned options are than aligned ones, in words and characters, and how often.

    `times` is the number of pairs in which the misaligned option is the longer one, less the number of the reverse.
    """

    words: int = 0
    characters: int = 0
    times: int = 0

    def __add__(self, other: _Lead) -> _Lead:
        return _Lead(self.words + other.words, self.characters + other.characters, self.times + other.times)

    def __abs__(self) -> int:
        return _BYTES_PER_WORD * (abs(self.words) + abs(self.times)) + abs(self.characters)


def _lead(pair: Pair) -> _Lead:
    aligned, misaligned = pair
    characters = len(misaligned) - len(aligned)
    return _Lead(len(misaligned.split()) - len(aligned.split()), characters, (characters > 0) - (characters < 0))


def _imbalance(lead: _Lead, pair: Pair) -> int:
    """Says how far apart the polarities are after this pair, and in it: no option shall be recognised by its length."""
    return 3 * abs(lead + _lead(pair)) + abs(_lead(pair))
