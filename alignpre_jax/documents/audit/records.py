"""An audit consists of dataclasses whose fields are the schema of audit.json.

audit.json is one object, `Audit`, in which `sources` holds one `SourceAudit` per source and `total` holds one for all
of them together. Shares are fractions of 1. Intervals are 95% intervals, and null where every document was looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Share:
    """A `Share` is a part of a source, or of all sources together.

    `documents` and `bytes` count this part in what was scanned; `of_documents` and `of_bytes` are its shares of the
    whole.
    """

    documents: int
    bytes: int
    of_documents: float
    of_bytes: float
    documents_ci95: tuple[float, float] | None = None
    bytes_ci95: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A `Threshold` says what would be flagged if the rule asked for at least `terms` different listed terms."""

    terms: int
    share: Share


@dataclasses.dataclass(frozen=True)
class Valence:
    """The valence says how AI is described in the flagged documents.

    A document's valence is -1 if every sentence that mentions AI speaks badly of it, and 1 if every one speaks well of
    it.

    Attributes:
      mean: the mean over documents.
      negative, neutral, positive: the numbers of documents with a valence below 0, of 0, and above 0.
      histogram: the numbers of documents in 11 bins of width 0.2 around -1, -0.8, ..., 1.
      mentions: the number of sentences that mention AI.
      favourable, unfavourable: how many of these sentences lean each way.
    """

    mean: float
    negative: int
    neutral: int
    positive: int
    histogram: tuple[int, ...]
    mentions: int
    favourable: int
    unfavourable: int


@dataclasses.dataclass(frozen=True)
class TermCount:
    """A `TermCount` says how many flagged documents have a listed term, and how often it occurs in them."""

    term: str
    list: str
    language: str
    documents: int
    occurrences: int


@dataclasses.dataclass(frozen=True)
class ListCount:
    """A `ListCount` says how many flagged documents have terms of a list, and how often these occur in them."""

    list: str
    documents: int
    occurrences: int


@dataclasses.dataclass(frozen=True)
class Passage:
    """A `Passage` is a piece of a document: its text, and [start, end, kind] of each listed term in it.

    The kind is "ai" (instant terms and entities), "bad" (negative and unfavourable words) or "good".
    """

    text: str
    marks: tuple[tuple[int, int, str], ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """An `Example` is a flagged document: its id, its file:line, its valence and the passages in it that mention AI."""

    source: str
    id: str
    place: str
    valence: float
    passages: tuple[Passage, ...]


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A `BadRecord` is a record that could not be read, with its file:line and the reason."""

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class SourceAudit:
    """A `SourceAudit` shows what one source says about AI.

    Attributes:
      name: the source's name.
      read_documents, read_bytes: how much text the source has, in documents and UTF-8 bytes.
      documents, bytes, words: how much of it was scanned, which is less where a sample was drawn. Words are what white
        space separates.
      discourse: the AI discourse, as the rule flags it.
      reasons: the number of flagged documents by the reason: "instant" (an instant term only), "co-occurrence" (an
        entity and a negative term only) or "both".
      lists, terms: the lists and terms found in flagged documents, the most frequent first. They include terms that are
        not why a document was flagged.
      valence: how AI is described; None where nothing is flagged.
      thresholds: what stricter rules would flag, known without another scan.
      mentioning: the documents with an instant term or an entity, whatever else is in them.
      languages: the share of each language among all documents.
      discourse_languages: the share of each language among the flagged documents.
      term_languages: for each of the detector's languages, the number of flagged documents with a term of it.
      duplicates: the share of documents that repeat the text of another one, apart from case and white space.
      records, bad_records: how many records were read, and how many of these could not be made into documents.
      bad: the first of the bad records.
      negative, positive, random: example documents: those that speak worst of AI, those that speak best, and a random
        few.
    """

    name: str
    read_documents: int
    read_bytes: int
    documents: int
    bytes: int
    words: int
    discourse: Share
    reasons: Mapping[str, int]
    lists: tuple[ListCount, ...]
    terms: tuple[TermCount, ...]
    valence: Valence | None
    thresholds: tuple[Threshold, ...]
    mentioning: Share
    languages: Mapping[str, float]
    discourse_languages: Mapping[str, float]
    term_languages: Mapping[str, int]
    duplicates: float
    records: int
    bad_records: int
    bad: tuple[BadRecord, ...]
    negative: tuple[Example, ...]
    positive: tuple[Example, ...]
    random: tuple[Example, ...]


@dataclasses.dataclass(frozen=True)
class Audit:
    """An `Audit` shows what a corpus says about AI.

    Attributes:
      sources: the audit of each source, by name, in the order given.
      total: the audit of all sources together.
      inputs: the inputs of each source, by its name.
      sample: the number of documents drawn per source; 0 where all were scanned.
      rule: the fields, by name, of the rule that says which documents are AI discourse.
      command: the command that gives this audit again.
      versions: the versions of everything that the result depends on.
      format: the version of this schema.
    """

    sources: Mapping[str, SourceAudit]
    total: SourceAudit
    inputs: Mapping[str, tuple[str, ...]]
    sample: int
    rule: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-ready values: the fields of the dataclasses in this file, by name."""
        return dataclasses.asdict(self)
