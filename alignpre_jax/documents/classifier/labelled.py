"""Labelled documents come with the package, or are a user's own."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, Literal

from etils import epath

from alignpre_jax.foundation import PathLike, UserError, suggest

Stance = Literal["negative", "neutral", "positive", "none", "unknown"]
Split = Literal["train", "test"]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A `Labelled` is a document with the right answers about it.

    Attributes:
      id: the document's id, unique in its set.
      text: the document.
      is_ai: whether it is AI discourse (documents/labelled/LABELLING.md says when it is).
      stance: how AI is described; "none" where it is not, "unknown" where nobody has said.
      kind: a short tag by which figures are broken down, such as "homonym" or "no_keyword".
      split: classifiers are trained on "train" and scored on "test".
      language: the language of the text, ISO 639-1.
    """

    id: str
    text: str
    is_ai: bool
    stance: Stance
    kind: str = "plain"
    split: Split = "test"
    language: str = "en"


@functools.cache
def labelled_documents() -> tuple[Labelled, ...]:
    """Returns the labelled documents that come with the package, in order."""
    folder = resources.files("alignpre_jax.documents") / "labelled"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".jsonl")), key=lambda item: item.name)
    return tuple(row for file in files for row in _parsed(file.read_text("utf-8").splitlines(), file.name))


def read_labelled(path: PathLike) -> tuple[Labelled, ...]:
    """Reads a JSONL file of {"text": str, "is_ai": bool, "id"?, "stance"?, "kind"?, "split"?, "language"?}.

    Other keys are ignored. A document without an id is named by its line. A missing stance is "none" or, for AI
    discourse, "unknown"; a missing split is "test", for scoring.

    Raises:
      UserError: with file and line, for a record that is not such an object or whose id came before.
    """
    place = epath.Path(path)
    if not place.is_file():
        raise UserError(f"there is no file {str(path)!r}", where="labelled", fix="give a JSONL file of labelled texts")
    try:
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8: {error.reason}", where=str(path), fix="save the file as UTF-8") from None
    rows = tuple(_parsed(lines, str(path)))
    if not rows:
        raise UserError("no labelled document", where=str(path), fix='give lines {"text": ..., "is_ai": true or false}')
    return rows


def _parsed(lines: Iterable[str], name: str) -> Iterator[Labelled]:
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where=where, fix="mend the line or remove it") from None
        row = _row(record, f"line-{number}", where)
        if row.id in seen:
            raise UserError(f"the id {row.id!r} came before", where=where, fix="give every document its own id")
        seen.add(row.id)
        yield row


def _row(record: Any, default_id: str, where: str) -> Labelled:
    if not isinstance(record, dict):
        raise UserError("not a JSON object", where=where, fix='give {"text": ..., "is_ai": true or false}')
    text, is_ai = record.get("text"), record.get("is_ai")
    if not isinstance(text, str) or not text.strip():
        raise UserError("no text", where=where, fix="give the document as a string under 'text'")
    if not isinstance(is_ai, bool):
        raise UserError(f"'is_ai' is {is_ai!r}", where=where, fix="give true or false")
    stance = _choice(record, "stance", "unknown" if is_ai else "none", typing.get_args(Stance), where)
    if (stance == "none") == is_ai:
        fix = 'the stance is "none" if, and only if, the document is not AI discourse'
        raise UserError(f"the stance {stance!r} where 'is_ai' is {is_ai}", where=where, fix=fix)
    return Labelled(
        id=str(record.get("id", default_id)),
        text=text,
        is_ai=is_ai,
        stance=stance,
        kind=str(record.get("kind", "plain")),
        split=_choice(record, "split", "test", typing.get_args(Split), where),
        language=str(record.get("language", "en")),
    )


def _choice(record: dict[str, Any], key: str, default: str, choices: tuple[str, ...], where: str) -> Any:
    value = record.get(key, default)
    if value not in choices:
        raise UserError(f"{key!r} is {value!r}", where=where, fix=suggest(str(value), choices))
    return value
