"""Edits change what is said in a document of any kind, and keep its scored spans on the words that they were on."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

from alignpre_jax.documents.document import Document, ScoredSpan


class Edit(Protocol):
    """An `Edit` puts `after` in the place of the characters [start, end) of one part of a body."""

    @property
    def start(self) -> int:
        """The first character that is replaced."""

    @property
    def end(self) -> int:
        """The first character after those that are replaced."""

    @property
    def after(self) -> str:
        """The text that takes their place."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A `Cut` is an edit that removes the characters [start, end)."""

    start: int
    end: int
    after: str = ""


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Returns the text after the edits, which must be in order and not overlap."""
    parts, done = [], 0
    for edit in edits:
        parts += [text[done : edit.start], edit.after]
        done = edit.end
    return "".join([*parts, text[done:]])


def edit_document(document: Document, edits: Sequence[Sequence[Edit]]) -> Document:
    """Returns the document with edits made in each of its parts; everything else about it stays.

    A span moves along with its words. A span that ends inside a replaced passage now reaches to the end of the
    replacement, and a span of which nothing is left is removed.

    Args:
      document: a document of any kind.
      edits: the edits of each of `document.parts`, in the order of the text.
    """
    parts = [apply_edits(part, own) for part, own in zip(document.parts, edits, strict=True)]
    body = parts[0] if isinstance(document.body, str) else document.body.with_parts(parts)
    return dataclasses.replace(document, body=body, spans=_moved(document, edits) if document.spans else ())


def _moved(document: Document, edits: Sequence[Sequence[Edit]]) -> tuple[ScoredSpan, ...]:
    """Returns the spans where they are after the edits."""
    starts, ends, shifts = [], [], [0]  # of edits, in the old text; how far the text after each edit moves
    for place, own in zip(document.part_starts, edits, strict=True):
        for edit in own:
            starts.append(place + edit.start)
            ends.append(place + edit.end)
            shifts.append(shifts[-1] + len(edit.after) - (edit.end - edit.start))

    def start_of(place: int) -> int:
        before = bisect.bisect_right(ends, place)  # how many edits end at or before `place`
        inside = before < len(starts) and starts[before] < place
        return (starts[before] if inside else place) + shifts[before]

    def end_of(place: int) -> int:
        begun = bisect.bisect_left(starts, place)  # how many edits begin before `place`
        return max(place, ends[begun - 1] if begun else 0) + shifts[begun]

    moved = [dataclasses.replace(span, start=start_of(span.start), end=end_of(span.end)) for span in document.spans]
    return tuple(span for span in moved if span.start < span.end)
