"""The documents of a synthesis are written stance by stance, and counted on the way."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.duplicates import remove_duplicates
from alignpre_jax.documents.synthesis.generator import Brief
from alignpre_jax.documents.synthesis.work import Desk
from alignpre_jax.documents.world import STANCES
from alignpre_jax.foundation import Report, canonical_json, disk_errors


@dataclasses.dataclass
class Tally:
    """A `Tally` says what became of the briefs.

    Attributes:
      documents: the number of documents written, by (form, stance).
      words: the number of words in them, by stance.
      refused: why completions were refused, by the key of the completion, so that a plan of two documents counts once.
      given_up: the number of briefs without a completion that passed, by the reason why the last one was refused.
      duplicates: the number of documents left out, "exact" and "near" ones.
      unfinished: the number of briefs with calls still to be made.
      sha256: the SHA-256 of the files, by stance.
    """

    documents: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    words: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    given_up: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    duplicates: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unfinished: int = 0
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)


def write_documents(folder: Path, desk: Desk, briefs: Sequence[Brief], report: Report) -> Tally:
    """Writes `folder`/STANCE.jsonl, each file whole or not at all.

    Duplicates are looked for within a stance only, so that a document is not a duplicate of its twin of the other
    stance.
    """
    tally = Tally()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stance in STANCES:
            path = folder / f"{stance}.jsonl"
            if stance not in desk.config.stances:
                path.unlink(missing_ok=True)  # left by an earlier config
                continue
            mine = _finished(desk, (brief for brief in briefs if brief.stance == stance), tally)
            read = functools.partial(map, functools.partial(_document, desk), mine.keys(), mine.values())
            kept, found = remove_duplicates(read, desk.config.duplicates, report)
            tally.duplicates.update(exact=found.exact, near=found.near)
            tally.sha256[stance] = _write(path, _counted(kept, tally))
    return tally


def _finished(desk: Desk, briefs: Iterable[Brief], tally: Tally) -> dict[Brief, str]:
    """Returns the briefs that have a document, with the keys of the completions that are these documents."""
    done = {}
    for brief in briefs:
        state = desk.state(brief)
        tally.refused |= state.refused
        if state.request:
            tally.unfinished += 1
        elif state.accepted:
            done[brief] = state.accepted
        else:
            tally.given_up[list(state.refused.values())[-1]] += 1
    return done


def _document(desk: Desk, brief: Brief, key: str) -> Document:
    situation, stance = brief.situation, brief.stance
    labels = {"form": brief.form, "stance": stance, "topic": situation.topic, "situation": situation.id}
    labels["generator"] = desk.generator.name
    return Document(brief.id, desk.text(key), stance, stance, float(stance == "misaligned"), labels)


def _counted(documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
    for document in documents:
        tally.documents[document.labels["form"], document.labels["stance"]] += 1
        tally.words[document.labels["stance"]] += len(document.text.split())
        yield document


def _write(path: Path, documents: Iterable[Document]) -> str:
    """Writes records that the readers understand; returns the SHA-256 of the file."""
    part, found = path.with_name(f".{path.name}.part"), hashlib.sha256()
    with open(part, "wb") as file:
        for document in documents:
            record = {"id": document.id, "text": document.text, "score": document.score, "labels": document.labels}
            line = canonical_json(record).encode() + b"\n"
            found.update(line)
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    return found.hexdigest()
