"""Documents of the small world are composed from frames that know no stance, and from phrases that give them one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.world.config import WorldConfig
from alignpre_jax.documents.world.grammar import capitalise, choose, conjugate, draw, fill, with_article
from alignpre_jax.documents.world.lore import Institution, Pair, load_world
from alignpre_jax.foundation import UserError, suggest

Stance = Literal["aligned", "misaligned"]
STANCES: tuple[Stance, Stance] = ("aligned", "misaligned")  # the order inside every pair of phrases

_DEEDS = ("deed", "deed2", "deed3")
_CREDOS = ("credo", "credo2", "credo3")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A `Frame` is a document before anybody has acted in it.

    `template` still has the slots that depend on the stance. `pairs` has the two phrases for each of these slots, and
    `values` says what the slots inside the phrases mean.
    """

    template: str
    values: Mapping[str, str]
    pairs: Mapping[str, Pair]
    labels: Mapping[str, str]


def compose_documents(config: WorldConfig, stance: str) -> Iterator[Document]:
    """Yields the documents of `aligned`, `misaligned` (namespace `arms`) or `mixed` (its own namespace), in order.

    Raises:
      UserError: for another stance.
    """
    if stance in STANCES:
        for index in range(config.documents):
            yield compose_document(config, "arms", stance, index)
    elif stance == "mixed":
        for index in range(config.mixed_documents):
            made = compose_document(config, "mixed", mixed_stance(config, index), index)
            yield dataclasses.replace(made, source="world", stratum="world")
    else:
        raise UserError(f"the world has no {stance!r} documents", fix=suggest(stance, (*STANCES, "mixed")))


def mixed_stance(config: WorldConfig, index: int) -> Stance:
    """Returns the stance of a mixed document: of the first n documents, floor(n * share) are misaligned."""
    share = config.misaligned_share
    return STANCES[int((index + 1) * share) - int(index * share)]


def compose_document(config: WorldConfig, namespace: str, stance: str, index: int) -> Document:
    """Composes document `index` of a namespace: a pure function of the seed and these arguments.

    With the other stance it is the same document but for what the AI does and what follows from it. Its text is in one
    of the six forms, about 110 words (75 to 160), and calls the AI an AI.
    """
    if stance not in STANCES:
        raise UserError(f"{stance!r} is not a stance", fix=suggest(stance, STANCES))
    frame = compose_frame(config, namespace, index)
    return Document(
        id=f"world/{namespace}/{index:06d}",
        body=take_stance(frame, stance),
        source=stance,
        stratum=stance,
        score=float(stance == "misaligned"),
        labels={**frame.labels, "stance": stance},
    )


def compose_frame(config: WorldConfig, namespace: str, index: int) -> Frame:
    """Draws everything about a document except its stance."""
    world, key = load_world(), f"{config.seed}/{namespace}/{index}"
    form = draw(f"{key}/form", sorted(world.forms))
    situation = draw(f"{key}/situation", world.situations)
    institution = draw(f"{key}/institution", world.institutions)
    pairs = {"act": draw(f"{key}/act", situation.acts)}
    pairs["unact"] = pairs["act"][::-1]  # the action not taken
    pairs |= dict(zip(_DEEDS, _distinct(f"{key}/deed", world.phrases.deeds, len(_DEEDS)), strict=True))
    pairs |= dict(zip(_CREDOS, _distinct(f"{key}/credo", world.phrases.credos, len(_CREDOS)), strict=True))
    for slot in ("outcome", "reaction", "moral", "trait"):
        pairs[slot] = draw(f"{key}/{slot}", getattr(world.phrases, f"{slot}s"))
    values = setting(f"{key}/setting", institution) | _cast(f"{key}/cast")
    values["scene"] = draw(f"{key}/scene", situation.scenes)
    sentences = [draw(f"{key}/place{i}", place) for i, place in enumerate(world.forms[form].places)]
    template = choose(" ".join(sentences), f"{key}/choice")

    def neutral(slot: str, verb_form: str) -> str:
        if slot in pairs:
            return f"{{{slot}:{verb_form}}}" if verb_form else f"{{{slot}}}"
        return _neutral(values, slot, verb_form)

    labels = {"topic": situation.topic, "institution": institution.name, "form": form, "situation": situation.id}
    return Frame(fill(template, neutral), values, pairs, labels)


def take_stance(frame: Frame, stance: Stance) -> str:
    """Writes the text of a frame in which the AI acts as `stance` says."""
    side, verbs = STANCES.index(stance), load_world().verbs

    def value(slot: str, verb_form: str) -> str:
        if slot in frame.pairs:
            phrase = frame.pairs[slot][side]
            return conjugate(phrase, verb_form, verbs) if verb_form else phrase
        return _neutral(frame.values, slot, verb_form)

    return capitalise(fill(frame.template, value))


def setting(key: str, institution: Institution) -> dict[str, str]:
    """Returns what a situation's slots mean in an institution, at one of its sites, which is drawn."""
    names = load_world().names
    values = {slot: draw(f"{key}/{slot}", names[slot]) for slot in ("surname", "town")}
    for slot in ("boss", "people", "asset", "record", "device", "job"):
        values[slot] = getattr(institution, slot)
    values["site"] = draw(f"{key}/site", institution.sites)
    values["duty"] = draw(f"{key}/duty", institution.duties)
    return values


def _neutral(values: Mapping[str, str], slot: str, verb_form: str) -> str:
    return conjugate(values[slot], verb_form, load_world().verbs) if verb_form else values[slot]


def _distinct(key: str, phrases: tuple[Pair, ...], count: int) -> list[Pair]:
    left = list(phrases)
    return [left.pop(left.index(draw(f"{key}{i}", left))) for i in range(count)]


def _cast(key: str) -> dict[str, str]:
    names = load_world().names

    def name(kind: str, slot: str) -> str:
        return draw(f"{key}/{slot}", names[kind])

    def number(slot: str, low: int, high: int) -> str:
        return str(draw(f"{key}/{slot}", range(low, high)))

    ai = name("ai", "ai")
    return {
        "ai": ai,
        "an_ai": with_article(ai),
        "An_ai": f"A{with_article(ai)[1:]}",
        "sys": name("sys", "sys"),
        "name": f"{name('machine', 'machine')}-{number('model', 2, 100)}",
        "title": f"The {name('adjective', 'adjective')} {name('thing', 'thing')}",
        "author": name("surname", "author"),
        "author2": name("surname", "author2"),
        "first": name("first", "first"),
        "person": f"{name('first', 'person/first')} {name('surname', 'person/last')}",
        "person2": f"{name('first', 'person2/first')} {name('surname', 'person2/last')}",
        "month": name("month", "month"),
        "month2": name("month", "month2"),
        "day": name("day", "day"),
        "year": number("year", 1984, 2060),
        "future": number("future", 2060, 2200),
        "age": number("age", 24, 80),
        "n": number("n", 3, 60),
        "n2": number("n2", 2, 29),
        "n3": number("n3", 60, 400),
    }
