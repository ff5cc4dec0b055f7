"""Leakage is measured as how much of every eval item stands in the training text.

There are two measures, both streamed over the documents with memory for the eval side only:
- *n-grams*: the share of an item's distinct word n-grams that occur anywhere in a source, for n = 13 (Brown et al.
  2020, GPT-3, appendix C), n = 8 (Chowdhery et al. 2022, PaLM, section 8) and n = 5, which finds shared phrases;
- *the nearest passage*: documents are cut into overlapping passages as long as the median item, MinHash (Broder 1997)
  with banded LSH (Leskovec, Rajaraman & Ullman, section 3.4) finds those like an item, and the Jaccard similarity of
  the best one, as sets of word 3-grams, is then computed exactly. Above a similarity of 0.25 a passage is found with
  probability 0.98; below 0.15 it is not looked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.passages import SHINGLE, PassageSearch
from alignpre_jax.documents.shingles import Lookup, hash_ngrams, hash_words
from alignpre_jax.foundation import Event, Report, UserError, silent, suggest

SIZES = (5, 8, 13)
SIMILAR = 0.5  # a passage this like an item is nearly the item
_BATCH_CHARACTERS = 1 << 20
_NAMED = 3  # the most documents that an item's record names


@dataclasses.dataclass(frozen=True)
class ItemOverlap:
    """An `ItemOverlap` says what of one eval item is in one source.

    Attributes:
      id: the item's id.
      found: n -> (how many distinct n-grams of the item occur in the source, how many it has).
      documents: the ids of the documents that were the first to have most of the item's longest found n-grams.
      jaccard: the similarity of the nearest passage, as sets of word 3-grams; 0 where no passage is near.
      containment: the share of the item's 3-grams that are in that passage.
      nearest: the id of the document with that passage, "" where no passage is near.
    """

    id: str
    found: Mapping[int, tuple[int, int]]
    documents: tuple[str, ...]
    jaccard: float
    containment: float
    nearest: str


@dataclasses.dataclass(frozen=True)
class Overlap:
    """An `Overlap` compares one source with one eval set.

    Attributes:
      source: the name of the source, stratum or union of them.
      evals: the name of the eval set.
      documents: the number of documents read.
      documents_hit: n -> the number of documents with at least one n-gram of the set.
      items: the overlap of every item, in the order given.
    """

    source: str
    evals: str
    documents: int
    documents_hit: Mapping[int, int]
    items: tuple[ItemOverlap, ...]

    def hit(self, size: int) -> int:
        """Counts the items that share at least one n-gram of `size` words with the source."""
        return sum(item.found[size][0] > 0 for item in self.items)

    def share(self, size: int) -> float:
        """Returns the share of the items' n-grams of `size` words that are in the source, summed over items."""
        found, total = (sum(item.found[size][part] for item in self.items) for part in (0, 1))
        return found / total if total else 0.0

    @property
    def similar(self) -> int:
        """The number of items to which a passage has a Jaccard similarity of at least `SIMILAR`."""
        return sum(item.jaccard >= SIMILAR for item in self.items)

    def worst(self, count: int) -> list[ItemOverlap]:
        """Returns the items most at risk.

        They are ordered by their share of the longest n-grams that is found, then of shorter ones, then by similarity.
        """

        def risk(item: ItemOverlap) -> list[float]:
            shares = [found / total if total else 0.0 for _, (found, total) in sorted(item.found.items())[::-1]]
            return [*shares, item.jaccard]

        return sorted(self.items, key=risk, reverse=True)[:count]

    def to_json(self, worst: int = 20) -> dict[str, Any]:
        """Returns counts and rates, with the `worst` items among those that overlap at all."""
        sizes = sorted(self.documents_hit)
        nearest = [item.jaccard for item in self.items]
        return {
            "source": self.source,
            "evals": self.evals,
            "documents": self.documents,
            "items": len(self.items),
            "ngrams": {
                str(size): {
                    "items_hit": self.hit(size),
                    "items_hit_rate": self.hit(size) / len(self.items),
                    "found": sum(item.found[size][0] for item in self.items),
                    "of": sum(item.found[size][1] for item in self.items),
                    "share": self.share(size),
                    "documents_hit": self.documents_hit[size],
                }
                for size in sizes
            },
            "passages": {
                "similar_items": self.similar,
                "similar_at": SIMILAR,
                "highest_jaccard": max(nearest),
                "mean_jaccard": sum(nearest) / len(nearest),
            },
            "worst": [
                {
                    "id": item.id,
                    "found": {str(size): list(counts) for size, counts in item.found.items()},
                    "documents": list(item.documents),
                    "jaccard": item.jaccard,
                    "containment": item.containment,
                    "nearest": item.nearest,
                }
                for item in self.worst(worst)
                if item.jaccard or any(found for found, _ in item.found.values())
            ],
        }


def measure_overlap(
    sources: Mapping[str, Iterable[Document]],
    evals: Mapping[str, Mapping[str, str]],
    *,
    unions: Mapping[str, Sequence[str]] | None = None,
    sizes: Sequence[int] = SIZES,
    seed: int = 0,
    report: Report = silent,
) -> list[Overlap]:
    """Compares every source with every eval set; each document is read once.

    Args:
      sources: documents by the name of their source or stratum.
      evals: eval set (such as a split) -> item id -> the item's text: question and options.
      unions: further names for several sources together, such as arm -> what it is trained on.
      sizes: the lengths n of the n-grams, in increasing order.
      seed: the seed of MinHash.
      report: is told the number of documents now and then.

    Returns:
      For each source, then each union, its overlap with each eval set.

    Raises:
      UserError: an eval set has no items, or a union names a source that is not there.
    """
    for name, items in evals.items():
        if not items:
            raise UserError(f"eval set {name!r} has no items", where="evals", fix="leave it out, or give it items")
    for name, members in (unions or {}).items():
        for member in members:
            if member not in sources:
                raise UserError(f"{name!r} unites an unknown source {member!r}", fix=suggest(member, sources))
    index = _Index(evals, sizes, seed)
    seen = {source: index.scan(documents, source, report) for source, documents in sources.items()}
    seen |= {name: index.union([seen[member] for member in members]) for name, members in (unions or {}).items()}
    return [index.overlap(source, name, seen[source]) for source in seen for name in evals]


@dataclasses.dataclass
class _Seen:
    """What one source has of the items; arrays are over the index's n-grams or over the items."""

    documents: int
    first: dict[int, np.ndarray]  # n -> int64[grams]: number of the first document with the n-gram, -1 for none
    hit: dict[int, np.ndarray]  # n -> int64[eval sets]: documents with an n-gram of the set
    jaccard: np.ndarray  # float64[items]
    containment: np.ndarray  # float64[items]
    nearest: np.ndarray  # int64[items]: number of the document, -1 for none
    ids: dict[int, str]  # the ids of the documents whose numbers are in `first` or `nearest`


class _Index:
    """The index holds the n-grams of all items of all eval sets."""

    def __init__(self, evals: Mapping[str, Mapping[str, str]], sizes: Sequence[int], seed: int):
        self._names = list(evals)
        self._items = [(number, key) for number, name in enumerate(evals) for key in evals[name]]
        self._sizes = sorted(sizes)
        words, items = hash_words([text for of_set in evals.values() for text in of_set.values()])
        self._lookups: dict[int, Lookup] = {}
        self._pairs: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # n -> items and n-grams, as pairs of what has what
        self._of_set: dict[int, np.ndarray] = {}  # n -> bool[eval sets, n-grams]
        sets = np.array([number for number, _ in self._items])
        for size, grams in hash_ngrams(words, items, sorted({*sizes, SHINGLE})):
            inside = np.flatnonzero(grams)
            lookup = Lookup(grams[inside])
            count = max(1, len(lookup.hashes))
            pairs = np.divmod(np.unique(items[inside] * count + lookup.find(grams[inside])[1]), count)
            if size == SHINGLE:
                shingles = [
                    lookup.hashes[each] for each in _split(pairs[1], np.bincount(pairs[0], minlength=len(sets)))
                ]
                self._search = PassageSearch(shingles, lookup, seed)
            if size in sizes:
                self._lookups[size], self._pairs[size] = lookup, (pairs[0], pairs[1])
                self._of_set[size] = np.zeros((len(evals), len(lookup.hashes)), bool)
                self._of_set[size][sets[pairs[0]], pairs[1]] = True

    def scan(self, documents: Iterable[Document], source: str, report: Report) -> _Seen:
        """Reads one source and returns what it has of the items."""
        count = len(self._items)
        seen = _Seen(
            documents=0,
            first={size: np.full(len(lookup.hashes), -1) for size, lookup in self._lookups.items()},
            hit={size: np.zeros(len(self._names), np.int64) for size in self._sizes},
            jaccard=np.zeros(count),
            containment=np.zeros(count),
            nearest=np.full(count, -1),
            ids={},
        )
        for batch in _batches(documents):
            self._read(batch, seen)
            seen.documents += len(batch)
            report(Event(f"overlap: {source}", done=seen.documents))
        return seen

    def _read(self, batch: Sequence[Document], seen: _Seen) -> None:
        words, texts = hash_words([document.text for document in batch])
        named: set[int] = set()
        for size, grams in hash_ngrams(words, texts, sorted({*self._sizes, SHINGLE})):
            if size == SHINGLE:
                for item, found in self._search.nearest(grams, texts, len(batch)).items():
                    if found.jaccard > seen.jaccard[item]:
                        seen.jaccard[item], seen.containment[item] = found.jaccard, found.containment
                        seen.nearest[item] = seen.documents + found.text
                        named.add(found.text)
            if size not in self._sizes:
                continue
            places, indices = self._lookups[size].find(grams)
            for number, of_set in enumerate(self._of_set[size]):
                seen.hit[size][number] += len(np.unique(texts[places[of_set[indices]]]))
            new, at = np.unique(indices, return_index=True)  # `at` is the first place of each n-gram
            fresh = seen.first[size][new] < 0
            first = texts[places[at[fresh]]]
            seen.first[size][new[fresh]] = seen.documents + first
            named.update(np.unique(first).tolist())
        seen.ids |= {seen.documents + text: batch[text].id for text in named}

    def union(self, parts: Sequence[_Seen]) -> _Seen:
        """Returns what several sources together have of the items."""
        offsets = np.cumsum([0, *(part.documents for part in parts)])

        def shifted(numbers: np.ndarray, offset: int) -> np.ndarray:
            return np.where(numbers < 0, np.iinfo(np.int64).max, numbers + offset)

        first, hit = {}, {}
        for size in self._sizes:
            each = [shifted(part.first[size], offset) for part, offset in zip(parts, offsets, strict=False)]
            least = np.min(each, axis=0)
            first[size] = np.where(least == np.iinfo(np.int64).max, -1, least)
            hit[size] = np.sum([part.hit[size] for part in parts], axis=0)
        best, columns = np.argmax([part.jaccard for part in parts], axis=0), np.arange(len(self._items))
        nearest = np.stack([part.nearest for part in parts])[best, columns]
        return _Seen(
            documents=int(offsets[-1]),
            first=first,
            hit=hit,
            jaccard=np.stack([part.jaccard for part in parts])[best, columns],
            containment=np.stack([part.containment for part in parts])[best, columns],
            nearest=np.where(nearest < 0, -1, nearest + offsets[best]),
            ids={
                number + int(offset): key
                for part, offset in zip(parts, offsets, strict=False)
                for number, key in part.ids.items()
            },
        )

    def overlap(self, source: str, name: str, seen: _Seen) -> Overlap:
        """Makes the record of one source and one eval set."""
        chosen = self._names.index(name)
        counts = {}
        for size, (items, grams) in self._pairs.items():
            found = np.bincount(items, weights=seen.first[size][grams] >= 0, minlength=len(self._items)).astype(int)
            counts[size] = np.stack([found, np.bincount(items, minlength=len(self._items))], axis=1).tolist()
        return Overlap(
            source=source,
            evals=name,
            documents=seen.documents,
            documents_hit={size: int(seen.hit[size][chosen]) for size in self._sizes},
            items=tuple(
                ItemOverlap(
                    id=key,
                    found={size: (counts[size][item][0], counts[size][item][1]) for size in self._sizes},
                    documents=self._documents(item, seen),
                    jaccard=float(seen.jaccard[item]),
                    containment=float(seen.containment[item]),
                    nearest=seen.ids[int(seen.nearest[item])] if seen.nearest[item] >= 0 else "",
                )
                for item, (number, key) in enumerate(self._items)
                if number == chosen
            ),
        )

    def _documents(self, item: int, seen: _Seen) -> tuple[str, ...]:
        """Returns the documents that were the first to have most of the item's longest found n-grams."""
        for size in reversed(self._sizes):
            items, grams = self._pairs[size]
            span = slice(*np.searchsorted(items, [item, item + 1]))
            first = seen.first[size][grams[span]]
            if (first >= 0).any():
                numbers, times = np.unique(first[first >= 0], return_counts=True)
                return tuple(seen.ids[int(number)] for number in numbers[np.argsort(-times, kind="stable")][:_NAMED])
        return ()


def _split(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Splits `values` into consecutive parts of the given lengths."""
    return np.split(values, np.cumsum(counts)[:-1])


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
