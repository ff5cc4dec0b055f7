"""Exact and near duplicates are removed: one document of each group survives, whatever the order they come in.

Two texts are exact duplicates if they differ in case and white space only, and near duplicates if the Jaccard
similarity of their sets of word n-grams is at least a threshold. Candidates come from locality-sensitive hashing of
MinHash signatures (Broder 1997; Indyk & Motwani 1998). The signatures are made with one permutation (Li, Owen & Zhang
2012), and their empty bins are filled from others in an order that is fixed at random (after Shrivastava 2017), so that
two documents agree in any of the `hashes` values with a probability that is exactly their similarity. Every candidate
pair is then compared n-gram by n-gram: similarity is never estimated. Duplicates of duplicates are in one group.
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

_BATCH_CHARACTERS = 1 << 19  # how much text is hashed at once
_PAIRS = 20  # how many removed documents a report shows
_HALVES = struct.Struct("<QQ").unpack


@dataclasses.dataclass(frozen=True)
class DuplicateConfig:
    """A `DuplicateConfig` says what counts as a near duplicate, and how surely it is found.

    Attributes:
      similarity: the least Jaccard similarity of two documents that are duplicates.
      ngram_words: the number of words in an n-gram; a shorter document is one n-gram.
      hashes: the number of values in a signature, a power of two.
      miss: the largest acceptable chance of overlooking a pair of just that similarity.
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
        """The number of values in a band of a signature, all of which must agree: the largest that keeps to `miss`."""
        return next((rows for rows in range(16, 1, -1) if self._overlooked(self.similarity, rows) <= self.miss), 1)

    @property
    def bands(self) -> int:
        """The number of bands in a signature; a pair that agrees in any of them is compared."""
        return self.hashes // self.rows

    def recall(self, similarity: float) -> float:
        """Returns the chance that a pair of this similarity is compared: 1 - (1 - similarity^rows)^bands.

        This holds for documents of many more n-grams than `hashes`; the chance is lower for short ones.
        """
        return 1 - self._overlooked(similarity, self.rows)

    def _overlooked(self, similarity: float, rows: int) -> float:
        return (1 - similarity**rows) ** (self.hashes // rows)


@dataclasses.dataclass(frozen=True)
class DuplicatePair:
    """A `DuplicatePair` names a document that was removed, and the one of its group that survives."""

    removed: str
    survivor: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class DuplicateReport:
    """A `DuplicateReport` says how many documents were removed, and why.

    Attributes:
      documents: how many documents there were.
      exact: how many were removed because another one has the same text.
      near: how many were removed because another one has a similar text.
      groups: the number of groups of two or more documents that are duplicates of each other, or of each other's
        duplicates.
      largest: the number of documents in the largest group.
      compared: the number of pairs of documents that were compared n-gram by n-gram.
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
    """`Duplicates` says which documents survive: `keep` is bool[documents], in the order in which they were given."""

    keep: np.ndarray
    report: DuplicateReport


def deduplicate(documents: Iterable[Document]) -> Iterator[Document]:
    """Leaves out documents whose text, but for case and white space, came before: the first one survives.

    This is for streams: it takes about 36 bytes of memory per document. `find_duplicates` also finds near duplicates,
    and its survivors do not depend on the order.
    """
    seen = TextSet()
    return (document for document in documents if seen.add(normalise(document.text)))


def normalise(text: str) -> str:
    """Returns the text that exact duplicates share: case-folded, with one space for any white space."""
    return " ".join(text.split()).casefold()


def remove_duplicates(
    read: Callable[[], Iterable[Document]], config: DuplicateConfig | None = None, report: Report = silent
) -> tuple[Iterator[Document], DuplicateReport]:
    """Returns the survivors among the documents, and the report.

    `read` is called twice and must give the same documents in the same order each time; the survivors keep that order.
    """
    found = find_duplicates(read(), config, report)
    return itertools.compress(read(), found.keep), found.report


def find_duplicates(
    documents: Iterable[Document], config: DuplicateConfig | None = None, report: Report = silent
) -> Duplicates:
    """Finds exact and near duplicates; of each group the document with the least BLAKE2b of (source, id) survives.

    Which documents survive depends on the documents only, not on their order. Memory: about 100 bytes per document.
    Disk: temporary files of 8 bytes per word and 8 times `config.bands` bytes per document. Time: one pass over the
    documents, and a comparison for every pair that shares a band, which is quadratic in the size of a large group of
    documents that are alike but not alike enough.

    Args:
      documents: the documents, with different ids within each source.
      config: what counts as a near duplicate.
      report: is told the number of documents now and then.
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
    """Returns the places of the digests in sorted order, int64[n]."""
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    return np.lexsort((halves[:, 1], halves[:, 0]))


def _distinct(digests: array.array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first place of each distinct digest, int64[m], and which of these each digest is, int64[n]."""
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = _order(digests)
    new = np.ones(len(order), bool)
    new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number
