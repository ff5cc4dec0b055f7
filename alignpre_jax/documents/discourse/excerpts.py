"""The passages of a text that show its hits."""

from __future__ import annotations

import bisect
import dataclasses
import operator

from alignpre_jax.documents.discourse.fold import fold
from alignpre_jax.documents.discourse.hits import Hits
from alignpre_jax.documents.discourse.lists import index
from alignpre_jax.documents.discourse.scan import find_matches

_PIECE = 2_000  # characters


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A passage around a term: `text` is [start, end) of the document, the term [term_start, term_end)."""

    term: str
    list: str
    language: str
    start: int
    end: int
    term_start: int
    term_end: int
    text: str


def excerpts(text: str, hits: Hits, width: int = 160, limit: int = 3) -> tuple[Excerpt, ...]:
    """Where the terms of `hits` occur first in `text`, with about `width` characters around each.

    Args:
      text: the text that was scanned; it is scanned again, as hits hold counts only.
      hits: the terms to show; `Hits(hits.of(INSTANT))` shows instant terms only.
      width: length of a passage in characters, the term in its middle; it ends at spaces where there are any.
      limit: no more passages than this; a term inside an earlier passage gets none of its own.

    Returns:
      Passages of the text as it is (case, spelling and line breaks kept), in its order. Positions
      count characters of `text`.
    """
    wanted = {(hit.term, hit.list, hit.language) for hit in hits.hits}
    terms, patterns = index().terms, index().patterns
    folded = fold(text)
    anchors = _anchors(text)
    found: list[Excerpt] = []
    for number, start, end in sorted(find_matches(folded), key=lambda match: (match[1], -match[2])):
        names = [(terms[n].name, terms[n].list, terms[n].language) for n in patterns[number].terms]
        name = next((name for name in names if name in wanted), None)
        if name is None:
            continue
        if len(found) == limit:
            break
        spelling = patterns[number].spelling
        first = start + spelling.startswith(b" ")
        last = end - spelling.endswith(b" ")
        term_start, term_end = _offset(text, anchors, first + 1) - 1, _offset(text, anchors, last)
        if found and term_end <= found[-1].end:
            continue
        wanted.discard(name)
        low, high = _around(text, term_start, term_end, width)
        found.append(Excerpt(*name, low, high, term_start, term_end, text[low:high]))
    return tuple(found)


def _anchors(text: str) -> list[tuple[int, int]]:
    """(characters, folded bytes) before each piece of `text`; cut after a space, pieces fold independently."""
    anchors = [(0, 0)]
    while cut := text.find(" ", anchors[-1][0] + _PIECE) + 1:
        start, length = anchors[-1]
        anchors.append((cut, length + len(fold(text[start:cut])) - 1))  # the next piece shares the space at the end
    return anchors


def _offset(text: str, anchors: list[tuple[int, int]], length: int) -> int:
    """The least number of characters of `text` whose folded form has `length` bytes, without a space at the end."""
    number = max(0, bisect.bisect_left(anchors, length, key=operator.itemgetter(1)) - 1)
    start, before = anchors[number]
    stop = anchors[number + 1][0] if number + 1 < len(anchors) else len(text)
    ends = range(start, stop + 1)
    return ends[bisect.bisect_left(ends, length - before, key=lambda end: len(fold(text[start:end]).rstrip(b" ")))]


def _around(text: str, start: int, end: int, width: int) -> tuple[int, int]:
    """About `width` characters around [start, end), to the next spaces inwards."""
    margin = max(0, width - (end - start)) // 2
    low, high = max(0, start - margin), min(len(text), end + margin)
    while 0 < low < start and not text[low - 1].isspace() and start - low > margin // 2:
        low += 1
    while end < high < len(text) and not text[high].isspace() and high - end > margin // 2:
        high -= 1
    return low, high
