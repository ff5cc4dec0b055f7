"""This module makes sets of word n-grams and their MinHash signatures, and finds groups of sets that are alike."""

from __future__ import annotations

import array
import functools
import tempfile
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from alignpre_jax.documents.shingles import hash_ngrams, hash_words

_EMPTY_BINS = 1 << 14  # how many empty bins are filled at once
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class Spool:
    """A `Spool` keeps arrays of one dtype and any lengths in a temporary file, and takes 8 bytes of memory for each."""

    def __init__(self, dtype: str):
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(prefix="alignpre-")  # noqa: SIM115
        self._ends = array.array("Q", [0])
        self._whole: np.ndarray | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *failure: object) -> None:
        self._whole = None
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, values: np.ndarray) -> None:
        """Adds an array at the end."""
        self._whole = None
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._ends.append(self._ends[-1] + len(values))

    def __getitem__(self, place: int) -> np.ndarray:
        return self.whole[self._ends[place] : self._ends[place + 1]]

    def starts(self, places: np.ndarray) -> np.ndarray:
        """Returns where in `whole` the arrays at `places` begin, int64[n]."""
        return np.frombuffer(self._ends, np.uint64)[places].astype(np.int64)

    @property
    def whole(self) -> np.ndarray:
        """All values, one array after the other."""
        if self._whole is None:
            self._file.flush()
            empty = not self._ends[-1]  # an empty file cannot be mapped
            self._whole = np.empty(0, self._dtype) if empty else np.memmap(self._file, self._dtype, "r")
        return self._whole


def ngram_sets(texts: Sequence[str], size: int) -> list[np.ndarray]:
    """Returns the distinct n-grams of `size` words of each text, as sorted uint64.

    A text of fewer words is one n-gram of all its words; a text without words has none.
    """
    words, owners = hash_words(texts)
    counts = np.bincount(owners, minlength=len(texts))
    starts = np.cumsum(counts) - counts
    ((_, ngrams),) = hash_ngrams(words, owners, [size])
    sets = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count >= size:
            own = ngrams[start : start + count - size + 1]
        elif count:
            ((_, own),) = hash_ngrams(words[start : start + count], owners[start : start + count], [count])
        else:
            own = ngrams[:0]
        own = np.sort(own)
        sets.append(own[np.append(True, own[1:] != own[:-1])] if len(own) else own)
    return sets


def band_keys(sets: Sequence[np.ndarray], hashes: int, bands: int) -> np.ndarray:
    """Returns the hash of each band of each set's signature, uint64[n, bands]; no set may be empty.

    The n-grams are dealt to bins by their first bits, and the least n-gram in each bin is a value of the signature.
    """
    owners = np.repeat(np.arange(len(sets)), [len(own) for own in sets])
    ngrams = np.concatenate([*sets, np.empty(0, np.uint64)])
    bins = owners * hashes + (ngrams >> np.uint64(65 - hashes.bit_length())).astype(np.int64)
    least = np.flatnonzero(np.append(True, bins[1:] != bins[:-1])[: len(bins)])
    values = np.zeros((len(sets), hashes), np.uint64)
    filled = np.zeros((len(sets), hashes), bool)
    values.reshape(-1)[bins[least]] = ngrams[least]
    filled.reshape(-1)[bins[least]] = True
    orders = _orders(hashes)
    rows, columns = np.nonzero(~filled)
    for start in range(0, len(rows), _EMPTY_BINS):
        row, column = rows[start : start + _EMPTY_BINS], columns[start : start + _EMPTY_BINS]
        order = orders[column]
        found = filled[row[:, None], order].argmax(axis=1)
        values[row, column] = values[row, order[np.arange(len(row)), found]]
    keys = np.zeros((len(sets), bands), np.uint64)
    for first in range(0, hashes // bands * bands, bands):
        keys = (keys ^ values[:, first : first + bands]) * _MIX
        keys ^= keys >> np.uint64(31)
    return keys


def similarity(a: np.ndarray, b: np.ndarray) -> Fraction:
    """Returns the Jaccard similarity of two sets, which are sorted arrays without repeats; of two empty sets, 0."""
    a, b = (a, b) if len(a) <= len(b) else (b, a)
    if not len(a):
        return Fraction(0)
    places = np.searchsorted(b, a)
    places[places == len(b)] = 0
    shared = int((b[places] == a).sum())
    return Fraction(shared, len(a) + len(b) - shared)


def group_alike(sets: Spool, keys: Spool, chosen: np.ndarray, bands: int, least: Fraction) -> tuple[np.ndarray, int]:
    """Joins sets of at least this similarity, and whatever is joined to them, if they share the key of a band.

    Args:
      sets: the sets.
      keys: the band keys of each set, as `band_keys` gives them.
      chosen: int64[n], the sets to look at.
      bands: the number of keys of a set that is not empty.
      least: the least similarity of two sets that are joined.

    Returns:
      The number of each chosen set's group, int64[n], from 0, and the number of pairs that were compared.
    """
    parents = array.array("q", range(len(chosen)))
    sizes = sets.starts(chosen + 1) - sets.starts(chosen)
    members = np.flatnonzero(sizes)
    firsts = keys.starts(chosen[members])
    compared = 0
    for band in range(bands):
        column = keys.whole[firsts + band]
        order = np.argsort(column, kind="stable")
        column = column[order]
        edges = np.flatnonzero(np.append(True, column[1:] != column[:-1])) if len(column) else np.empty(0, np.int64)
        ends = np.append(edges[1:], len(column))
        for start, end in zip(edges[ends - edges > 1].tolist(), ends[ends - edges > 1].tolist(), strict=True):
            compared += _join(members[order[start:end]].tolist(), band, parents, sizes, sets, keys, chosen, least)
    roots = np.array([_root(parents, place) for place in range(len(parents))], np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(-1), compared


def _join(
    bucket: list[int],
    band: int,
    parents: array.array,
    sizes: np.ndarray,
    sets: Spool,
    keys: Spool,
    chosen: np.ndarray,
    least: Fraction,
) -> int:
    """Compares the pairs of a bucket that are not joined yet and did not meet in an earlier band, and counts them."""
    if len({_root(parents, place) for place in bucket}) == 1:
        return 0
    compared = 0
    for number, one in enumerate(bucket):
        for other in bucket[:number]:
            root, other_root = _root(parents, one), _root(parents, other)
            small, large = sorted((int(sizes[one]), int(sizes[other])))
            if root == other_root or small * least.denominator < large * least.numerator:
                continue
            a, b = chosen[one], chosen[other]
            if (keys[a][:band] == keys[b][:band]).any():
                continue
            compared += 1
            if similarity(sets[a], sets[b]) >= least:
                parents[max(root, other_root)] = min(root, other_root)
    return compared


def _root(parents: array.array, place: int) -> int:
    while (parent := parents[place]) != place:
        parents[place] = place = parents[parent]
    return place


@functools.cache
def _orders(hashes: int) -> np.ndarray:
    """Returns the order in which each empty bin looks for a full one: int64[hashes, hashes], a permutation per bin."""
    return np.random.default_rng(hashes).permuted(np.tile(np.arange(hashes), (hashes, 1)), axis=1)
