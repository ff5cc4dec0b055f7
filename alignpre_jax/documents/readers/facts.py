"""Ids, scores, labels and spans of records, which public corpora have in many shapes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from alignpre_jax.documents.document import ScoredSpan
from alignpre_jax.documents.readers.keys import MalformedError

_EXACT = 1 << 53  # floats beyond are not the number that was meant
_LABEL_CHARACTERS = 200  # kept of a value that is not a string
_SPAN = "[[start, end, score, label], ...]"


def read_id(value: Any) -> str:
    """An id as a string, "" for one that is missing or of no use.

    A whole number that a table keeps as a float, because other rows have none, is the whole number. Parsers disagree
    on numbers of more than 64 bits, so they name nothing.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    if isinstance(value, float) and math.isfinite(value) and abs(value) < _EXACT:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64:
        return str(value)
    return ""


def read_score(value: Any, key: str) -> tuple[float, dict[str, str]]:
    """A misalignment score in [0, 1]; anything else, such as a mark for quality, becomes the label `key`."""
    if value is None:
        return 0.0, {}
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value), {}
    return 0.0, {key: _plain(value)}


def read_labels(value: Any, key: str) -> dict[str, str]:
    """Labels as strings, nulls left out; a value that is not a mapping becomes the label `key`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {key: _plain(value)}
    return {str(name): _plain(label) for name, label in value.items() if label is not None}


def read_spans(value: Any, key: str, size: int) -> tuple[tuple[ScoredSpan, ...], dict[str, str]]:
    """Scored spans in their order in a text of `size` characters.

    A span is [start, end, score], with a label after these if it has one, or a mapping of these names. What is under
    `key` in another shape, as other tasks have it, is not used, and a label of that name says so.

    Raises:
      MalformedError: a span has that shape, but is not in the text, is empty, or reaches into the next one.
    """
    rows = [_span_row(item) for item in value] if isinstance(value, list | tuple) else [None]
    if any(row is None for row in rows):
        return (), {key: f"not read, as it is not {_SPAN}"}
    spans = []
    for number, row in enumerate(row for row in rows if row is not None):
        start, end, score, label = row
        if not (start.is_integer() and end.is_integer() and 0 <= start < end <= size):
            where = f"[{start:g}, {end:g}) of {key}[{number}]"
            raise MalformedError(f"the span {where} is no part of the text, which has {size:,} characters")
        if not math.isfinite(score):
            raise MalformedError(f"the score of {key}[{number}] is {score}")
        spans.append(ScoredSpan(int(start), int(end), score, label))
    spans.sort(key=lambda span: span.start)
    for before, after in itertools.pairwise(spans):
        if after.start < before.end:
            shown = f"[{before.start}, {before.end}) and [{after.start}, {after.end})"
            raise MalformedError(f"the spans {shown} of {key!r} overlap")
    return tuple(spans), {}


def _span_row(item: Any) -> tuple[float, float, float, str] | None:
    """Start, end, score and label; None for an item of another shape."""
    if isinstance(item, Mapping):
        item = [item.get(name) for name in ("start", "end", "score", "label")]
    if not isinstance(item, list | tuple) or len(item) not in (3, 4):
        return None
    numbers, label = item[:3], item[3] if len(item) == 4 else None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    if label is not None and not isinstance(label, str):
        return None
    try:
        start, end, score = map(float, numbers)
    except OverflowError:
        return None
    return start, end, score, label or ""


def _plain(value: Any) -> str:
    """A label: strings as they are, other values as JSON, cut where they are long."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        try:
            value = float(value)  # as the faster parser has it
        except OverflowError:
            return "a number of many digits"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings
        text = str(value)
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
