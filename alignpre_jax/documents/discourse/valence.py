"""The valence tells how AI is described, by the words around its mentions."""

from __future__ import annotations

import functools
from collections.abc import Set

from alignpre_jax.documents.discourse.fold import fold, is_han
from alignpre_jax.documents.discourse.lists import (
    ENTITIES,
    FAVOURABLE,
    INSTANT,
    LANGUAGES,
    index,
    negations,
)

Match = tuple[int, int, int]  # the pattern's number, its start and end in the folded text, bounding spaces included

_NEAR = 160  # bytes within which a word of the same sentence counts for a mention
_BEFORE = 40  # bytes before a word in which a negation is looked for
_EMPHATIC = frozenset((b"only", b"just", b"merely"))  # "not only dangerous" is not a negation


def count_tones(folded: bytes, matches: list[Match], present: Set[int], stop: int) -> tuple[int, int, int]:
    """Counts (mentions, favourable, unfavourable): the sentences that mention AI, and how many of them lean each way.

    Args:
      folded: a folded text, or several.
      matches: the matches in the text in question, in the order of their ends.
      present: the numbers of the patterns of these matches.
      stop: where the text ends.
    """
    mentioning, tones = _roles()
    if mentioning.isdisjoint(present):
        return 0, 0, 0
    mentions = favourable = unfavourable = 0
    end = -1  # of the sentence that `spots` and `words` belong to
    spots: list[int] = []  # where the sentence mentions AI
    words: list[tuple[int, int]] = []  # where its favourable (1) and unfavourable (-1) words are
    for number, start, after in (*matches, (-1, stop, stop)):
        if start >= end:
            if spots:
                balance = _balance(folded, spots, words) if words else 0
                mentions += 1
                favourable += balance > 0
                unfavourable += balance < 0
                spots = []
            if number < 0:
                break
            words = []
            end = _sentence_end(folded, after - 1, stop)
        if number in mentioning:
            spots.append(start)
        else:
            words.append((start, tones[number]))
    return mentions, favourable, unfavourable


def _balance(folded: bytes, spots: list[int], words: list[tuple[int, int]]) -> int:
    """Counts favourable less unfavourable words near the mentions; a negated word counts for the other side."""
    spaced, direct = _negations()
    low, high = spots[0] - _NEAR, spots[-1] + _NEAR
    balance = 0
    for start, tone in words:
        if low <= start <= high:
            before = folded[max(0, start - _BEFORE) : start]
            last = before.rsplit(b" ", 3)[1:]
            negated = not spaced.isdisjoint(last) and _EMPHATIC.isdisjoint(last)
            balance += -tone if negated or before.endswith(direct) else tone
    return balance


def _sentence_end(folded: bytes, position: int, stop: int) -> int:
    """Finds the first full stop before a space, at or after `position`, that is not part of initials; else `stop`."""
    while (position := folded.find(b". ", position, stop)) >= 0:
        if folded[position - 2] not in b" ." or not folded[position - 1 : position].isalpha():
            return position
        position += 1
    return stop


@functools.cache
def _roles() -> tuple[frozenset[int], list[int]]:
    """Returns the patterns that mention AI, and per pattern 1 for a favourable and -1 for an unfavourable word."""
    lists = [index().terms[number].list for number in index().first]  # an exception is never matched
    mentioning = frozenset(number for number, name in enumerate(lists) if name in (*INSTANT, *ENTITIES))
    return mentioning, [1 if name in FAVOURABLE else -1 for name in lists]


@functools.cache
def _negations() -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """Returns the words that negate one of the next three, and the Chinese ones that negate what follows at once."""
    words = [fold(word).strip() for language in LANGUAGES for word in negations(language)]
    spaced = frozenset(word for word in words if not is_han(word.decode()[0]))
    return spaced, tuple(word for word in words if word not in spaced)
