"""From a record (a JSON object, a table's row) to a document, or to the reason why it is none."""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.world import WorldConfig

try:  # a faster parser where there is one; `_parse_json` makes its results the standard library's
    import orjson
except ImportError:
    _fast_loads: Callable[[bytes], Any] | None = None
else:
    _fast_loads = orjson.loads

_slow_loads = json.JSONDecoder().decode  # on text; json.loads is slower on bytes, and takes UTF-16 too


@dataclasses.dataclass(frozen=True)
class RecordKeys:
    """Under which keys (columns, features) a record has its parts. Only the text is required."""

    text: str = "text"
    id: str = "id"
    score: str = "score"
    labels: str = "labels"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.text, self.id, self.score, self.labels


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """How the files of a source are read.

    Attributes:
      source: the documents' source and stratum.
      keys: what the parts of a record are called.
      max_record_bytes: a longer record is malformed; so is a longer text file.
      max_bytes: how much text of an input will be used, 0 for all; "packages:" spreads it over the packages.
      world: what "world:" composes.
    """

    source: str
    keys: RecordKeys = RecordKeys()
    max_record_bytes: int = 1 << 25
    max_bytes: int = 0
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)


class MalformedError(ValueError):
    """Why a record is left out."""


def parse_document(line: bytes, default_id: str, source: str, keys: RecordKeys) -> Document:
    """The document that a line of JSON in UTF-8 is, with or without a byte order mark.

    Raises:
      MalformedError: it is none.
    """
    document = make_document(_parse_json(line), default_id, source, keys)
    if b"\\" in line:  # only an escape can stand for a NUL or for half of a surrogate pair
        refuse_nul(document.text)
        for key, text in ((keys.text, document.text), (keys.id, document.id), *document.labels.items()):
            try:
                (key + text).encode()
            except UnicodeEncodeError:
                raise MalformedError(f"{key!a} has half of a surrogate pair") from None
    return document


def make_document(record: Any, default_id: str, source: str, keys: RecordKeys) -> Document:
    """The document that a record is.

    Args:
      record: a mapping, to be checked; keys other than `keys` are ignored.
      default_id: names a record without an id.
      source: the document's source and stratum.
      keys: what the parts are called.

    Raises:
      MalformedError: the record is no document. Its text is not searched for NULs and half surrogate pairs.
    """
    if not isinstance(record, dict):
        raise MalformedError("not a JSON object")
    if keys.text not in record:
        raise MalformedError(f"no key {keys.text!r} among {sorted(map(str, record))[:8]}")
    return Document(
        id=_checked_id(record[keys.id], keys.id) if keys.id in record else default_id,
        body=checked_text(record[keys.text], keys.text),
        source=source,
        stratum=source,
        score=_checked_score(record[keys.score], keys.score) if keys.score in record else 0.0,
        labels=_checked_labels(record[keys.labels], keys.labels) if keys.labels in record else {},
    )


def decoded(data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8")  # the latter is faster
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def checked_text(text: Any, key: str = "text") -> str:
    """`text`, if it is a string with something in it."""
    if not isinstance(text, str):
        raise MalformedError(f"{key!r} is {type(text).__name__}, not a string")
    if not text or text.isspace():
        raise MalformedError("the text is empty")
    return text


def refuse_nul(text: str) -> None:
    """Raises `MalformedError` if there is a NUL character, as binary data has and tokenizers do not expect."""
    if "\0" in text if text.isascii() else b"\0" in text.encode("utf-8", "surrogatepass"):  # the faster search
        raise MalformedError("the text has a NUL character")


def _checked_id(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise MalformedError(f"{key!r} is neither a non-empty string nor a whole number")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # beyond, parsers disagree on what it is
        raise MalformedError(f"{key!r} is a number of more than 64 bits")
    return str(value)


def _checked_score(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise MalformedError(f"{key!r} is not a number from 0 to 1")
    return float(value)


def _checked_labels(value: Any, key: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise MalformedError(f"{key!r} is not an object of strings")
    return dict(value)


def _parse_json(line: bytes) -> Any:
    if _fast_loads is not None:
        try:
            return _fast_loads(line)
        except ValueError:  # stricter than the standard library, which now decides
            pass
    try:
        return _slow_loads(decoded(line))
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from None
