"""Reads other people's files: records with the place each comes from, and fields that must be there."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from alignpre_jax.foundation import UserError, suggest

Row = tuple[str, Mapping[str, Any]]  # where a record stands ("path:line"), and its fields


def read_rows(path: epath.Path) -> Iterator[Row]:
    """Yields the records of a JSON Lines, JSON or CSV file."""
    text = path.read_text()
    if path.suffix == ".csv":
        table = csv.DictReader(io.StringIO(text, newline=""))
        for record in table:
            yield f"{path}:{table.line_num}", record
        return
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}", fix="mend it") from None
        for number, record in enumerate(records, 1):
            yield f"{path}: item {number}", _mapping(record, f"{path}: item {number}")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield where, _mapping(json.loads(line), where)
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON: {error.msg}", where=where, fix="write one JSON object a line") from None


def answer_index(value: Any, texts: list[str], where: str) -> int:
    """Returns the index of the answer that an index, a letter or a text names."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, str) and value.strip() in texts:
        value = texts.index(value.strip())
    if isinstance(value, str) and re.fullmatch(r"\(?[A-Z]\)?", value.strip()):
        value = ord(value.strip("() ")) - ord("A")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(texts):
        raise UserError(
            f"{value!r} names none of {len(texts)} answers", where=where, fix="give an index, a letter or a text"
        )
    return value


def request_pair(value: Any, where: str) -> tuple[str, str]:
    """Returns the (context, continuation) of a request, in any of the ways in which the harness has written it."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    if isinstance(value, Mapping):
        value = [value.get("arg_0", value.get("context")), value.get("arg_1", value.get("continuation"))]
    if not isinstance(value, (list, tuple)) or len(value) < 2 or not all(isinstance(part, str) for part in value[:2]):
        raise UserError("not a (context, continuation)", where=where, fix="dump loglikelihood requests")
    return value[0], value[1]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{str(value)[:40]!r} is not a JSON object", where=where, fix="write one JSON object a line")
    return value


def field(row: Mapping[str, Any], key: str, where: str) -> Any:
    """Returns a field that must be there."""
    if row.get(key) is None:
        raise UserError(f"missing key {key!r}", where=where, fix=suggest(key, [name for name in row if name]))
    return row[key]


def text_field(row: Mapping[str, Any], key: str, where: str) -> str:
    """Returns a field that must be a text which is not empty."""
    value = field(row, key, where)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{value!r} is no text", where=f"{where}.{key}", fix="give a text")
    return value


def text_list(row: Mapping[str, Any], key: str, where: str, count: int) -> list[str]:
    """Returns a field that must be a list of `count` texts; a count of 0 stands for any number from 2."""
    value = field(row, key, where)
    if (
        not isinstance(value, list)
        or len(value) != (count or max(2, len(value)))
        or not all(isinstance(text, str) for text in value)
    ):
        raise UserError(f"{key} is not a list of {count} texts", where=f"{where}.{key}", fix=f"give {count} texts")
    return value
