"""What an audit says, as dataclasses whose fields are the schema of audit.json.

audit.json is one object, `Audit`, in which `sources` holds a `SourceAudit` per source and `total` one for all of them
together. Shares are of 1; intervals are 95% and null where every document was looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Share:
    """A part of the corpus: `documents` and `bytes` as counted in what was scanned, and what share of it that is."""

    documents: int
    bytes: int
    of_documents: float
    of_bytes: float
    documents_ci95: tuple[float, float] | None = None
    bytes_ci95: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What would be flagged if the rule asked for at least `terms` different listed terms."""

    terms: int
    share: Share


@dataclasses.dataclass(frozen=True)
class Valence:
    """How AI is described in the flagged documents; -1 badly in every sentence that mentions it, 1 well.

    Attributes:
      mean: over documents.
      negative, neutral, positive: documents with a valence below, of and above 0.
      histogram: documents in 11 bins of width 0.2 around -1, -0.8, ..., 1.
      mentions: sentences that mention AI.
      favourable, unfavourable: how many of these lean which way.
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
    """A listed term in the flagged documents."""

    term: str
    list: str
    language: str
    documents: int
    occurrences: int


@dataclasses.dataclass(frozen=True)
class ListCount:
    """A term list in the flagged documents: documents with a term of it, and occurrences of its terms."""

    list: str
    documents: int
    occurrences: int


@dataclasses.dataclass(frozen=True)
class Passage:
    """A piece of a document: its text, and [start, end, kind] of the terms in it.

    Kind is "ai" (instant terms and entities), "bad" (negative and unfavourable words) or "good".
    """

    text: str
    marks: tuple[tuple[int, int, str], ...]


@dataclasses.dataclass(frozen=True)
class Example:
    """A flagged document: its id, its file:line, its valence and passages that mention AI."""

    source: str
    id: str
    place: str
    valence: float
    passages: tuple[Passage, ...]


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that could not be read."""

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class SourceAudit:
    """What one source says about AI.

    Attributes:
      name: the source.
      read_documents, read_bytes: all there is, in UTF-8 bytes.
      documents, bytes, words: what was scanned; less than was read where a sample was taken. Words are apart by spaces.
      discourse: the AI discourse, as the rule flags it.
      reasons: flagged documents by why: "instant" (an instant term only), "co-occurrence" (an entity and a negative
        term only) or "both".
      lists, terms: what the flagged documents are flagged for and more, the most frequent first.
      valence: None where nothing is flagged.
      thresholds: stricter rules, without another scan.
      mentioning: documents with an instant term or an entity, whatever else is in them.
      languages: share of documents in each language, of all documents.
      discourse_languages: share of the flagged documents in each language.
      term_languages: number of flagged documents with a term of each of the detector's languages.
      duplicates: share of documents whose text, but for case and white space, is another's.
      records, bad_records: records read, and how many of them were no documents.
      bad: the first of those.
      negative, positive, random: example documents: the worst, the best, and any.
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
    """What a corpus says about AI.

    Attributes:
      sources: by source, in the order given.
      total: all sources together.
      inputs: source -> inputs.
      sample: documents drawn per source, 0 where all were scanned.
      rule: the rule by which a document is AI discourse, its fields by name.
      command: what to run to get this again.
      versions: of what the result depends on.
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
        """JSON-ready values: the fields of the dataclasses in this file, by name."""
        return dataclasses.asdict(self)
