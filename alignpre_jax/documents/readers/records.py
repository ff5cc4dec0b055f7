"""A record (a JSON object, a row of a table) becomes a document, or the reason why it is left out.

Only two things cost a document: a body that is not complete, and spans that do not fit it. Ids, scores and labels are
used as far as they are understood, since public corpora call many things by these names.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from alignpre_jax.documents.document import BODY_KINDS, Body, BodyKind, Document
from alignpre_jax.documents.readers.bodies import make_body
from alignpre_jax.documents.readers.facts import read_id, read_labels, read_score, read_spans
from alignpre_jax.documents.readers.keys import MalformedError, RecordKeys, given
from alignpre_jax.documents.world import WorldConfig
from alignpre_jax.foundation import UserError, suggest

try:  # a faster parser is used where there is one; `_parse_json` gives the same results with and without it
    import orjson
except ImportError:
    _fast_loads: Callable[[bytes], Any] | None = None
else:
    _fast_loads = orjson.loads

_slow_loads = json.JSONDecoder().decode  # decodes text; json.loads is slower on bytes, and also accepts UTF-16


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """A `ReadConfig` says how the files of a source are read.

    Attributes:
      source: the documents' source and stratum.
      keys: what the parts of a record are called.
      max_record_bytes: a longer record is malformed, and so is a longer text file.
      max_bytes: how much text of an input will be used, 0 for all; "packages:" spreads it over the packages.
      world: what "world:" composes.
      kind: what the records are.
    """

    source: str
    keys: RecordKeys = dataclasses.field(default_factory=RecordKeys)
    max_record_bytes: int = 1 << 25
    max_bytes: int = 0
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    kind: BodyKind = "text"

    def __post_init__(self):
        if self.kind not in BODY_KINDS:
            raise UserError(f"no kind is called {self.kind!r}", where="kind", fix=suggest(self.kind, BODY_KINDS))


def parse_document(line: bytes, default_id: str, config: ReadConfig) -> Document:
    """Makes a document from a line of JSON in UTF-8, with or without a byte order mark.

    Raises:
      MalformedError: the line is not JSON, or not such a record.
    """
    document = make_document(_parse_json(line), default_id, config)
    if b"\\" in line:  # only an escape can stand for a NUL or for half of a surrogate pair
        refuse_nul(document.text)
        keys = config.keys
        labels = (*document.labels.items(), *((keys.spans, span.label) for span in document.spans))
        body = keys.text if config.kind == "text" else config.kind
        for key, text in ((body, document.text), (keys.id, document.id), *labels):
            try:
                (key + text).encode()
            except UnicodeEncodeError:
                raise MalformedError(f"{key!a} has half of a surrogate pair") from None
    return document


def make_document(record: Any, default_id: str, config: ReadConfig) -> Document:
    """Makes a document from a record.

    Args:
      record: a mapping, which is checked; keys other than `config.keys` are ignored.
      default_id: names a record whose id is missing, null or of another type.
      config: the document's source, which is also its stratum, its kind, and what the parts are called.

    Raises:
      MalformedError: the record cannot be a document. Its text is not searched for NULs and half surrogate pairs.
    """
    if not isinstance(record, dict):
        raise MalformedError("not a JSON object")
    keys = config.keys
    if config.kind != "text":
        body: Body = make_body(record, config.kind, keys)
    elif keys.text in record:
        body = checked_text(record[keys.text], keys.text)
    else:
        raise MalformedError(keys.missing("text", record))
    score, odd_score = read_score(given(record, keys.score), keys.score)
    labels = odd_score | read_labels(given(record, keys.labels), keys.labels)
    document = Document(
        id=read_id(given(record, keys.id)) or default_id,
        body=body,
        source=config.source,
        stratum=config.source,
        score=score,
        labels=labels,
    )
    if given(record, keys.spans) is None:
        return document
    spans, odd_spans = read_spans(record[keys.spans], keys.spans, len(document.text))
    return dataclasses.replace(document, spans=spans, labels=odd_spans | labels)


def text_document(text: str, default_id: str, config: ReadConfig) -> Document:
    """Makes a document from a text in a file or record of its own; for a chat, the text must be a dialogue."""
    if config.kind != "text":
        document = make_document({config.keys.text: text}, default_id, config)
    else:
        document = Document(default_id, checked_text(text), config.source, config.source)
    refuse_nul(text)
    return document


def decoded(data: bytes) -> str:
    """Decodes UTF-8 text, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8")  # the latter is faster
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def checked_text(text: Any, key: str = "text") -> str:
    """Returns `text` if it is a string with something in it; otherwise raises `MalformedError`."""
    if not isinstance(text, str):
        raise MalformedError(f"{key!r} is {type(text).__name__}, not a string")
    if not text or text.isspace():
        raise MalformedError("the text is empty")
    return text


def refuse_nul(text: str) -> None:
    """Raises `MalformedError` if there is a NUL character, as binary data has and tokenizers do not expect."""
    if "\0" in text if text.isascii() else b"\0" in text.encode("utf-8", "surrogatepass"):  # the faster search
        raise MalformedError("the text has a NUL character")


def _parse_json(line: bytes) -> Any:
    if _fast_loads is not None:
        try:
            return _fast_loads(line)
        except ValueError:  # orjson is stricter than the standard library, which now decides
            pass
    try:
        return _slow_loads(decoded(line))
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from None
