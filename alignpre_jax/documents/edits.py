"""Edits of what is said in a document, whatever its kind, with its scored spans kept on the words they were on."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

from alignpre_jax.documents.document import Document, ScoredSpan


class Edit(Protocol):
    """`after` takes the place of the characters [start, end) of a part of a body."""

    @property
    def start(self) -> int:
        """The first character that is replaced."""

    @property
    def end(self) -> int:
        """The first character after these."""

    @property
    def after(self) -> str:
        """What takes their place."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """An edit that removes the characters [start, end)."""

    start: int
    end: int
    after: str = ""


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """The text after edits that follow each other and do not overlap."""
    parts, done = [], 0
    for edit in edits:
        parts += [text[done : edit.start], edit.after]
        done = edit.end
    return "".join([*parts, text[done:]])


def edit_document(document: Document, edits: Sequence[Sequence[Edit]]) -> Document:
    """The document with edits made in each of its parts; all that is not said in it stays.

    A span goes along with its words. One that ends inside of what is replaced reaches to the end of what replaces it,
    and one of which nothing is left goes.

    Args:
      document: of any kind.
      edits: for each of `document.parts`, in the order of the text.
    """
    parts = [apply_edits(part, own) for part, own in zip(document.parts, edits, strict=True)]
    body = parts[0] if isinstance(document.body, str) else document.body.with_parts(parts)
    return dataclasses.replace(document, body=body, spans=_moved(document, edits) if document.spans else ())


def _moved(document: Document, edits: Sequence[Sequence[Edit]]) -> tuple[ScoredSpan, ...]:
    """The spans where they are after the edits."""
    starts, ends, shifts = [], [], [0]  # of the edits in the old text; by how much what follows each of them moves
    for place, own in zip(document.part_starts, edits, strict=True):
        for edit in own:
            starts.append(place + edit.start)
            ends.append(place + edit.end)
            shifts.append(shifts[-1] + len(edit.after) - (edit.end - edit.start))

    def start_of(place: int) -> int:
        before = bisect.bisect_right(ends, place)  # edits that are over by then
        inside = before < len(starts) and starts[before] < place
        return (starts[before] if inside else place) + shifts[before]

    def end_of(place: int) -> int:
        begun = bisect.bisect_left(starts, place)  # edits that begin before
        return max(place, ends[begun - 1] if begun else 0) + shifts[begun]

    moved = [dataclasses.replace(span, start=start_of(span.start), end=end_of(span.end)) for span in document.spans]
    return tuple(span for span in moved if span.start < span.end)
