"""Exact and near duplicates: one document of each group survives, whatever the order they come in.

Two texts are exact duplicates if they differ in case and white space only, and near duplicates if the Jaccard
similarity of their sets of word n-grams is at least a threshold. Candidates come from locality-sensitive hashing of
MinHash signatures (Broder 1997; Indyk & Motwani 1998), made with one permutation (Li, Owen & Zhang 2012) and with the
empty bins filled from others in an order that is fixed at random (after Shrivastava 2017), so that two documents agree
in any of the `hashes` values with a probability that is exactly their similarity. Every candidate pair is then compared
n-gram by n-gram: similarity is never estimated. Duplicates of duplicates are in one group.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.hashset import TextSet
from alignpre_jax.documents.minhash import Spool, band_keys, group_alike, ngram_sets, similarity
from alignpre_jax.foundation import Event, Report, UserError, exact, silent

_BATCH_CHARACTERS = 1 << 19  # of text hashed at once
_PAIRS = 20  # shown in a report
_HALVES = struct.Struct("<QQ").unpack


@dataclasses.dataclass(frozen=True)
class DuplicateConfig:
    """What counts as a near duplicate, and how surely it is found.

    Attributes:
      similarity: the least Jaccard similarity of two documents that are duplicates.
      ngram_words: words in an n-gram; a shorter document is one n-gram.
      hashes: values in a signature, a power of two.
      miss: the most that may be the chance of overlooking a pair of just that similarity.
    """

    similarity: float = 0.8
    ngram_words: int = 5
    hashes: int = 128
    miss: float = 0.001

    def __post_init__(self):
        if not 0 < self.similarity <= 1:
            raise UserError(f"{self.similarity} is not in (0, 1]", where="similarity", fix="give e.g. 0.8")
        if self.ngram_words < 1:
            raise UserError(f"n-grams of {self.ngram_words} words", where="ngram_words", fix="give e.g. 5")
        if self.hashes < 2 or self.hashes & (self.hashes - 1):
            raise UserError(f"{self.hashes} is not a power of two", where="hashes", fix="give e.g. 128")
        if self.recall(self.similarity) < 1 - self.miss:
            raise UserError(
                f"{self.hashes} hashes overlook more than {self.miss} of the pairs of similarity {self.similarity}",
                where="hashes",
                fix="double it, or raise `similarity` or `miss`",
            )

    @property
    def rows(self) -> int:
        """Values of a signature that agree in a candidate pair: the most that keep to `miss`."""
        return next((rows for rows in range(16, 1, -1) if self._overlooked(self.similarity, rows) <= self.miss), 1)

    @property
    def bands(self) -> int:
        """How many times so many values are compared."""
        return self.hashes // self.rows

    def recall(self, similarity: float) -> float:
        """The chance that a pair of this similarity is compared: 1 - (1 - similarity^rows)^bands.

        It is that for documents of many more n-grams than `hashes`, and less for short ones.
        """
        return 1 - self._overlooked(similarity, self.rows)

    def _overlooked(self, similarity: float, rows: int) -> float:
        return (1 - similarity**rows) ** (self.hashes // rows)


@dataclasses.dataclass(frozen=True)
class DuplicatePair:
    """A document that was removed, and the one of its group that survives."""

    removed: str
    survivor: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class DuplicateReport:
    """How many documents were removed, and why.

    Attributes:
      documents: how many there were.
      exact: removed because another has the same text.
      near: removed because another has a similar text.
      groups: of two or more documents that are duplicates of each other, or of each other's duplicates.
      largest: the number of documents in the largest of them.
      compared: pairs of documents compared n-gram by n-gram.
      pairs: some of the removed documents, chosen by a hash of their ids.
    """

    documents: int
    exact: int
    near: int
    groups: int
    largest: int
    compared: int
    pairs: tuple[DuplicatePair, ...]


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Which documents survive: `keep` is bool [documents], in the order in which they were given."""

    keep: np.ndarray
    report: DuplicateReport


def deduplicate(documents: Iterable[Document]) -> Iterator[Document]:
    """Leaves out documents whose text, but for case and white space, came before: the first one survives.

    For streams: about 36 bytes of memory a document. `find_duplicates` also finds near duplicates, and its survivors
    do not depend on the order.
    """
    seen = TextSet()
    return (document for document in documents if seen.add(normalise(document.text)))


def normalise(text: str) -> str:
    """The text that exact duplicates share: case folded, one space for any white space."""
    return " ".join(text.split()).casefold()


def remove_duplicates(
    read: Callable[[], Iterable[Document]], config: DuplicateConfig | None = None, report: Report = silent
) -> tuple[Iterator[Document], DuplicateReport]:
    """The survivors among the documents that `read` gives, each time it is called, in the order it gives them."""
    found = find_duplicates(read(), config, report)
    return itertools.compress(read(), found.keep), found.report


def find_duplicates(
    documents: Iterable[Document], config: DuplicateConfig | None = None, report: Report = silent
) -> Duplicates:
    """Finds exact and near duplicates; of each group the document with the least BLAKE2b of (source, id) survives.

    Which ones survive depends on the documents only, not on their order. Memory: about 100 bytes a document; on disk,
    in temporary files, 8 bytes a word and 8 times `config.bands` bytes a document. Time: one pass over the documents,
    and a comparison for every pair that shares a band, which is quadratic in the size of a large group of documents
    that are alike but not alike enough.

    Args:
      documents: with different ids within each source.
      config: what counts as a near duplicate.
      report: told the number of documents now and then.
    """
    config = config or DuplicateConfig()
    texts, names = array.array("Q"), array.array("Q")  # 128-bit digests, two numbers each
    with Spool("u1") as ids, Spool("u8") as ngrams, Spool("u8") as keys:
        for batch in _batches(documents):
            normal = [normalise(document.text) for document in batch]
            sets = ngram_sets(normal, config.ngram_words)
            keys_of = iter(band_keys([own for own in sets if len(own)], config.hashes, config.bands))
            for document, text, own in zip(batch, normal, sets, strict=True):
                texts.extend(_digest(text))
                names.extend(_digest(f"{document.source}\0{document.id}"))
                ids.append(np.frombuffer(document.id.encode(), np.uint8))
                ngrams.append(own)
                keys.append(next(keys_of) if len(own) else own)
            report(Event("find duplicates", done=len(ids)))
        first, text_of = _distinct(texts)
        group_of, compared = group_alike(ngrams, keys, first, config.bands, exact(config.similarity))
        groups = group_of[text_of]
        by_name = _order(names)
        survivors = by_name[np.unique(groups[by_name], return_index=True)[1]]  # the first of each group
        keep = np.zeros(len(groups), bool)
        keep[survivors] = True
        removed = by_name[~keep[by_name]][:_PAIRS]
        pairs = tuple(
            DuplicatePair(
                ids[place].tobytes().decode(),
                ids[survivor].tobytes().decode(),
                1.0 if text_of[place] == text_of[survivor] else float(similarity(ngrams[place], ngrams[survivor])),
            )
            for place, survivor in zip(removed.tolist(), survivors[groups[removed]].tolist(), strict=True)
        )
    sizes = np.bincount(groups)
    counts = DuplicateReport(
        documents=len(keep),
        exact=len(keep) - len(first),
        near=len(first) - len(survivors),
        groups=int((sizes > 1).sum()),
        largest=int(sizes.max(initial=0)),
        compared=compared,
        pairs=pairs,
    )
    report(Event("find duplicates", done=len(keep), total=len(keep)))
    return Duplicates(keep, counts)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text) + 100
        if size > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _digest(text: str) -> tuple[int, int]:
    return _HALVES(hashlib.blake2b(text.encode(), digest_size=16).digest())


def _order(digests: array.array) -> np.ndarray:
    """Where the digests are in sorted order, int64[n]."""
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    return np.lexsort((halves[:, 1], halves[:, 0]))


def _distinct(digests: array.array) -> tuple[np.ndarray, np.ndarray]:
    """The first place of each distinct digest, int64[m], and for each digest which of them it is, int64[n]."""
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = _order(digests)
    new = np.ones(len(order), bool)
    new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number
