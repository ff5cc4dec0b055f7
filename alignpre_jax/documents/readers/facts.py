"""The ids, scores, labels and spans of records are read here; public corpora have them in many shapes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from alignpre_jax.documents.document import ScoredSpan
from alignpre_jax.documents.readers.keys import MalformedError

_EXACT = 1 << 53  # a larger float may not be the number that was meant
_LABEL_CHARACTERS = 200  # how much of a value that is not a string is kept
_SPAN = "[[start, end, score, label], ...]"


def read_id(value: Any) -> str:
    """Reads an id as a string, "" for an id that is missing or of no use.

    A whole number that a table keeps as a float, because other rows have no id, is read as the whole number. Parsers
    disagree on numbers of more than 64 bits, so such numbers are of no use as ids.
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
    """Reads a misalignment score in [0, 1]; anything else, such as a mark for quality, becomes the label `key`."""
    if value is None:
        return 0.0, {}
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value), {}
    return 0.0, {key: _plain(value)}


def read_labels(value: Any, key: str) -> dict[str, str]:
    """Reads labels as strings and leaves nulls out; a value that is not a mapping becomes the label `key`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {key: _plain(value)}
    return {str(name): _plain(label) for name, label in value.items() if label is not None}


def read_spans(value: Any, key: str, size: int) -> tuple[tuple[ScoredSpan, ...], dict[str, str]]:
    """Reads scored spans in a text of `size` characters, and puts them in order.

    A span is [start, end, score], perhaps followed by a label, or a mapping with these names. A value under `key` of
    another shape, as other tasks have it, is not used, and a label of that name says so.

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
    """Returns start, end, score and label; None for an item of another shape."""
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
    """Makes a label of a value: strings stay as they are, other values become JSON, cut where it is long."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        try:
            value = float(value)  # as the faster parser reads it
        except OverflowError:
            return "a number of many digits"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # keys that are not strings
        text = str(value)
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
