"""The tally counts findings while documents stream by, and turns the counts into the figures of an audit."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from alignpre_jax.documents.audit.records import (
    BadRecord,
    Example,
    ListCount,
    Share,
    SourceAudit,
    TermCount,
    Threshold,
    Valence,
)
from alignpre_jax.documents.audit.scan import EXAMPLES, Finding, by_chance, by_negative, by_positive
from alignpre_jax.documents.discourse import INSTANT, Hits, Rule

TERMS = 100  # how many of the most frequent terms are listed
THRESHOLDS = (1, 2, 3, 4, 5, 6)
BINS = 11  # bins of the histogram of valence
_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution
_DIGESTS = 1 << 16
_Number = TypeVar("_Number", int, float)


@dataclasses.dataclass
class Census:
    """A `Census` counts every document, whether or not it mentions AI."""

    read_documents: int = 0
    read_bytes: int = 0
    documents: int = 0
    bytes: int = 0
    squares: int = 0  # the sum of the documents' squared sizes, for the interval of a share of bytes
    words: int = 0
    languages: dict[str, int] = dataclasses.field(default_factory=dict)
    records: int = 0
    bad_records: int = 0
    bad: list[BadRecord] = dataclasses.field(default_factory=list)
    duplicates: float = 0.0

    def add(self, finding: Finding) -> None:
        """Counts a document that was scanned."""
        self.documents += 1
        self.bytes += finding.bytes
        self.squares += finding.bytes**2
        self.words += finding.words
        if finding.weight:
            self.languages[finding.language] = self.languages.get(finding.language, 0) + finding.weight

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Census:
        """Returns the census that `dataclasses.asdict` wrote."""
        return cls(**row | {"bad": [BadRecord(**record) for record in row["bad"]]})


@dataclasses.dataclass
class Part:
    """A `Part` counts the documents of one kind, such as the flagged ones."""

    documents: int = 0
    bytes: int = 0
    squares: int = 0

    def add(self, size: int) -> None:
        """Counts a document of `size` bytes."""
        self.documents += 1
        self.bytes += size
        self.squares += size**2


class Discourse:
    """A `Discourse` counts the documents that mention AI.

    These counts depend on the rule, so they are kept apart from the census and can be made again for another rule.
    """

    def __init__(self, rule: Rule):
        self.rule = rule
        self.rules = [dataclasses.replace(rule, terms=max(rule.terms, terms)) for terms in THRESHOLDS]
        self.mentioning = Part()
        self.parts = [Part() for _ in THRESHOLDS]
        self.flagged = Part()
        self.reasons = collections.Counter({"instant": 0, "co-occurrence": 0, "both": 0})
        self.lists: dict[str, list[int]] = {}
        self.terms: dict[tuple[str, str, str], list[int]] = {}
        self.languages: collections.Counter[str] = collections.Counter()
        self.term_languages: collections.Counter[str] = collections.Counter()
        self.valence_sum = 0.0
        self.valence_bins = [0] * BINS
        self.valence_signs = [0, 0, 0]
        self.mentions = [0, 0, 0]  # all sentences that mention AI, favourable ones, unfavourable ones
        self.examples = tuple(_Best(order) for order in (by_negative, by_positive, by_chance))

    def add(self, finding: Finding) -> None:
        """Counts a document that mentions AI."""
        hits = finding.hits
        assert hits is not None
        self.mentioning.add(finding.bytes)
        for rule, part in zip(self.rules, self.parts, strict=True):
            if not rule.flags(hits):
                break  # the rules only get stricter
            part.add(finding.bytes)
        if not self.rule.flags(hits):
            return
        self.flagged.add(finding.bytes)
        self.reasons[_reason(hits, self.rule)] += 1
        of_lists: dict[str, int] = {}
        for hit in hits.hits:
            _count(self.terms, (hit.term, hit.list, hit.language), hit.count)
            of_lists[hit.list] = of_lists.get(hit.list, 0) + hit.count
        for name, count in of_lists.items():
            _count(self.lists, name, count)
        if finding.weight:
            self.languages[finding.language] += finding.weight
        self.term_languages.update(hits.languages)
        valence = hits.valence
        self.valence_sum += valence
        self.valence_bins[math.floor((valence + 1) * (BINS - 1) / 2 + 0.5)] += 1
        self.valence_signs[(valence > 0) - (valence < 0) + 1] += 1
        for place, count in enumerate((hits.mentions, hits.favourable, hits.unfavourable)):
            self.mentions[place] += count
        if finding.passages:
            for best in self.examples:
                best.add(finding)

    def merge(self, other: Discourse) -> None:
        """Adds the counts of another `Discourse` of the same rule."""
        for mine, its in zip(
            (self.mentioning, self.flagged, *self.parts), (other.mentioning, other.flagged, *other.parts), strict=True
        ):
            mine.documents, mine.bytes = mine.documents + its.documents, mine.bytes + its.bytes
            mine.squares += its.squares
        for name, (documents, count) in other.lists.items():
            _count(self.lists, name, count, documents)
        for term, (documents, count) in other.terms.items():
            _count(self.terms, term, count, documents)
        self.reasons.update(other.reasons)
        self.languages.update(other.languages)
        self.term_languages.update(other.term_languages)
        self.valence_sum += other.valence_sum
        for mine_list, its_list in (
            (self.valence_bins, other.valence_bins),
            (self.valence_signs, other.valence_signs),
            (self.mentions, other.mentions),
        ):
            mine_list[:] = [a + b for a, b in zip(mine_list, its_list, strict=True)]
        for best, others in zip(self.examples, other.examples, strict=True):
            for finding in others.sorted():
                best.add(finding)


class DistinctSample:
    """Estimates the share of duplicates in bounded memory (distinct sampling; Gibbons 2001).

    It keeps the digests below a bound, and halves the bound whenever there are too many of them. Up to 65,536 different
    texts the share is exact. The result does not depend on the order of the documents.
    """

    def __init__(self) -> None:
        self._bound = 1 << 64
        self._counts: dict[int, int] = {}

    def add(self, digest: int, documents: int = 1) -> None:
        """Counts documents whose text has this digest."""
        if digest < self._bound:
            self._counts[digest] = self._counts.get(digest, 0) + documents
            if len(self._counts) > _DIGESTS:
                self._halve(self._bound >> 1)

    def merge(self, other: DistinctSample) -> None:
        """Adds the counts of another sample."""
        if other._bound < self._bound:
            self._halve(other._bound)
        for digest, documents in other._counts.items():
            self.add(digest, documents)

    @property
    def share(self) -> float:
        """The share of documents that repeat another one's text."""
        return 1 - len(self._counts) / total if (total := sum(self._counts.values())) else 0.0

    def _halve(self, bound: int) -> None:
        self._bound = bound
        self._counts = {digest: count for digest, count in self._counts.items() if digest < bound}


def source_audit(
    name: str, strata: Sequence[tuple[Census, Discourse]], rule: Rule, duplicates: float, bad: int
) -> SourceAudit:
    """Works out the figures of a source, or of all sources together.

    Args:
      name: the name of the source.
      strata: what was counted, source by source; samples are weighted by the sizes of the sources.
      rule: the rule by which the discourse was counted.
      duplicates: the share of duplicates.
      bad: how many bad records to name.
    """
    censuses = [census for census, _ in strata]
    all_of = Discourse(rule)
    for _, part in strata:
        all_of.merge(part)
    languages: dict[str, float] = {}
    for census in censuses:  # a source counts by its size, not by how many of its documents were identified
        scale = census.read_documents / max(1, sum(census.languages.values()))
        for language, count in census.languages.items():
            languages[language] = languages.get(language, 0.0) + scale * count
    weight = sum(languages.values())
    flagged = all_of.flagged.documents
    thresholds = [
        Threshold(terms, _share([(census, part.parts[place]) for census, part in strata]))
        for place, terms in enumerate(THRESHOLDS)
        if terms >= rule.terms
    ]
    negative, positive, random = (tuple(map(_example, best.sorted())) for best in all_of.examples)
    return SourceAudit(
        name=name,
        read_documents=sum(census.read_documents for census in censuses),
        read_bytes=sum(census.read_bytes for census in censuses),
        documents=sum(census.documents for census in censuses),
        bytes=sum(census.bytes for census in censuses),
        words=sum(census.words for census in censuses),
        discourse=_share([(census, part.flagged) for census, part in strata]),
        reasons=dict(all_of.reasons),
        lists=tuple(ListCount(key, *counts) for key, counts in sorted(all_of.lists.items(), key=_frequency)),
        terms=tuple(TermCount(*key, *counts) for key, counts in sorted(all_of.terms.items(), key=_frequency)[:TERMS]),
        valence=Valence(
            mean=all_of.valence_sum / flagged,
            negative=all_of.valence_signs[0],
            neutral=all_of.valence_signs[1],
            positive=all_of.valence_signs[2],
            histogram=tuple(all_of.valence_bins),
            mentions=all_of.mentions[0],
            favourable=all_of.mentions[1],
            unfavourable=all_of.mentions[2],
        )
        if flagged
        else None,
        thresholds=tuple(thresholds),
        mentioning=_share([(census, part.mentioning) for census, part in strata]),
        languages={key: count / weight for key, count in _ordered(languages)},
        discourse_languages={key: n / all_of.languages.total() for key, n in _ordered(all_of.languages)},
        term_languages=dict(_ordered(all_of.term_languages)),
        duplicates=duplicates,
        records=sum(census.records for census in censuses),
        bad_records=sum(census.bad_records for census in censuses),
        bad=tuple(record for census in censuses for record in census.bad)[:bad],
        negative=negative,
        positive=positive,
        random=random,
    )


def wilson(share: float, number: float) -> tuple[float, float]:
    """Returns the 95% score interval (Wilson 1927) of a share that was seen in a sample of `number` documents."""
    centre = share + _Z**2 / (2 * number)
    spread = _Z * math.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2))
    scale = 1 + _Z**2 / number
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _share(strata: Sequence[tuple[Census, Part]]) -> Share:
    """Works out the share of one kind of documents, by documents and by bytes.

    Sampled sources are strata, each weighted by its size. The share of bytes within a stratum is a ratio of means
    (Cochran 1977, equation 2.39). The intervals are Wilson's, at the sample size at which a simple random sample would
    have the same variance. They are not corrected for the part of a source that was drawn.
    """
    documents, size = sum(part.documents for _, part in strata), sum(part.bytes for _, part in strata)
    read = sum(census.read_documents for census, _ in strata), sum(census.read_bytes for census, _ in strata)
    shares, variances = [0.0, 0.0], [0.0, 0.0]
    for census, part in strata:
        if not census.documents:
            continue
        by_documents, by_bytes = part.documents / census.documents, part.bytes / census.bytes
        residuals = part.squares * (1 - by_bytes) ** 2 + (census.squares - part.squares) * by_bytes**2
        weights = census.read_documents / read[0], census.read_bytes / read[1]
        shares = [total + w * s for total, w, s in zip(shares, weights, (by_documents, by_bytes), strict=True)]
        if census.documents < census.read_documents:
            variances[0] += weights[0] ** 2 * by_documents * (1 - by_documents) / census.documents
            variances[1] += weights[1] ** 2 * residuals / census.bytes**2
    if all(census.documents == census.read_documents for census, _ in strata):
        return Share(documents, size, shares[0], shares[1])
    scanned = sum(census.documents for census, _ in strata)
    intervals = [
        wilson(share, share * (1 - share) / variance if variance else scanned)
        for share, variance in zip(shares, variances, strict=True)
    ]
    return Share(documents, size, shares[0], shares[1], intervals[0], intervals[1])


class _Best:
    """Keeps the first few findings in a given order, whatever the order in which they arrive."""

    def __init__(self, order: Callable[[Finding], tuple[float, ...]]):
        self._order = order
        self._heap: list[tuple[tuple[float, ...], str, Finding]] = []

    def add(self, finding: Finding) -> None:
        entry = (tuple(-part for part in self._order(finding)), finding.id, finding)
        if len(self._heap) < EXAMPLES:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def sorted(self) -> list[Finding]:
        return [finding for _, _, finding in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _reason(hits: Hits, rule: Rule) -> str:
    if not dataclasses.replace(rule, instant=None).flags(hits):
        return "instant"
    return "both" if hits.of(INSTANT) else "co-occurrence"


def _count(counts: dict[Any, list[int]], key: Any, occurrences: int, documents: int = 1) -> None:
    count = counts.setdefault(key, [0, 0])
    count[0] += documents
    count[1] += occurrences


def _frequency(entry: tuple[Any, list[int]]) -> tuple[int, int, Any]:
    key, (documents, occurrences) = entry
    return -documents, -occurrences, key


def _ordered(counts: Mapping[str, _Number]) -> list[tuple[str, _Number]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _example(finding: Finding) -> Example:
    assert finding.hits is not None
    return Example(finding.source, finding.id, finding.place, finding.hits.valence, finding.passages)
