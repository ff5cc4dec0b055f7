"""The passage of a text that is most like a given item is found by MinHash with banded LSH, and then measured."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignpre_jax.documents.shingles import Lookup

SHINGLE = 3  # words
_HASHES = 128
_ROWS = 2  # hashes in a band: 64 bands of 2 find similarity s with probability 1 - (1 - s^2)^64
_LEAST = 0.15  # a passage of which less is known from any item cannot be this similar to one of them
_LEAST_BLOCK = 16  # shingles


@dataclasses.dataclass(frozen=True)
class Passage:
    """A `Passage` is the one nearest to an item in a batch of texts: the index of its text, and its similarity."""

    text: int
    jaccard: float
    containment: float


class PassageSearch:
    """A `PassageSearch` holds items as sets of shingles and looks for the passages nearest to them.

    A text is cut into blocks of half the median item; two neighbouring blocks are a passage.
    """

    def __init__(self, items: list[np.ndarray], known: Lookup, seed: int):
        """Prepares the items: `items` are sets of shingles' hashes (sorted, distinct uint64), `known` their union."""
        self._items, self._known = items, known
        rng = np.random.default_rng(seed)
        self._factors = rng.integers(0, 1 << 64, _HASHES, np.uint64) | np.uint64(1)
        self._offsets = rng.integers(0, 1 << 64, _HASHES, np.uint64)
        sizes = np.array([len(item) for item in items])
        self._block = max(_LEAST_BLOCK, int(np.median(sizes)) // 2)
        self._numbers = np.flatnonzero(sizes)  # an item without a whole shingle is like nothing
        if len(self._numbers):
            starts = np.cumsum([0, *sizes[self._numbers]])[:-1]
            self._signatures = self._sign(np.concatenate([items[int(n)] for n in self._numbers]), starts)
            keys = _band_keys(self._signatures)
            self._order = np.argsort(keys, axis=0, kind="stable")
            self._keys = np.take_along_axis(keys, self._order, axis=0)

    def nearest(self, shingles: np.ndarray, texts: np.ndarray, count: int) -> dict[int, Passage]:
        """Finds the nearest passage of a batch for each item that has one near.

        Args:
          shingles: uint64[n], 0 where a shingle would cross into the next text.
          texts: int64[>= n], increasing: the text that each shingle is in.
          count: the number of texts.
        """
        inside = np.flatnonzero(shingles)
        if not len(inside) or not len(self._numbers):
            return {}
        shingles, texts = shingles[inside], texts[inside]
        sizes = np.bincount(texts, minlength=count)
        blocks_of = -(-sizes // self._block)
        first = np.cumsum(blocks_of) - blocks_of  # number of each text's first block
        within = np.arange(len(texts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        block = first[texts] + within // self._block
        starts = np.searchsorted(block, np.arange(block[-1] + 2))
        alone = blocks_of[texts[starts[:-1]]] == 1
        same = np.append(texts[starts[1:-1]] == texts[starts[:-2]], False)
        left = np.flatnonzero(alone | same)  # a passage is this block and the next one of the same text
        right = left + same[left]
        known = np.bincount(block[self._known.find(shingles)[0]], minlength=len(starts) - 1)
        begin, end = starts[left], starts[right + 1]
        share = (known[left] + np.where(right > left, known[right], 0)) / (end - begin)
        keep = share >= _LEAST
        if not keep.any():
            return {}
        left, right, begin, end = left[keep], right[keep], begin[keep], end[keep]
        signatures = self._sign_blocks(shingles, starts, left, right)
        found = {}
        for item, passage in self._best(signatures):
            text, wanted = int(texts[begin[passage]]), self._items[item]
            around = slice(
                max(begin[passage] - self._block, starts[first[text]]),
                min(end[passage] + self._block, starts[first[text] + blocks_of[text]]),
            )
            chosen = np.unique(_richest(shingles[around], wanted))
            common = len(np.intersect1d(chosen, wanted, assume_unique=True))
            if common:
                found[item] = Passage(text, common / (len(chosen) + len(wanted) - common), common / len(wanted))
        return found

    def _sign_blocks(self, shingles: np.ndarray, starts: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Returns the MinHash signatures of passages, uint32[passages, hashes]; each block is signed only once."""
        blocks = np.union1d(left, right)
        lengths = starts[blocks + 1] - starts[blocks]
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(starts[blocks] - offsets, lengths) + np.arange(lengths.sum())
        signed = self._sign(shingles[places], offsets)
        return np.minimum(signed[np.searchsorted(blocks, left)], signed[np.searchsorted(blocks, right)])

    def _sign(self, shingles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Returns the least value of each hash in the runs of shingles that begin at `starts`: uint32[runs, hashes]."""
        signatures = np.empty((len(starts), _HASHES), np.uint32)
        for number in range(_HASHES):
            hashes = (shingles * self._factors[number] + self._offsets[number]) >> np.uint64(32)
            signatures[:, number] = np.minimum.reduceat(hashes, starts)
        return signatures

    def _best(self, signatures: np.ndarray) -> list[tuple[int, int]]:
        """Returns an (item, passage) pair for each item that shares a band with a passage.

        The passage is the one with the highest estimate of similarity.
        """
        keys = _band_keys(signatures)
        pairs = []
        for band in range(keys.shape[1]):
            low = np.searchsorted(self._keys[:, band], keys[:, band], side="left")
            high = np.searchsorted(self._keys[:, band], keys[:, band], side="right")
            lengths = high - low
            passages = np.repeat(np.arange(len(keys)), lengths)
            places = np.repeat(low - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            pairs.append(np.unique(self._order[places, band] * len(keys) + passages))
        items, passages = np.divmod(np.unique(np.concatenate(pairs)), len(keys))
        equal = np.empty(len(items), np.int64)
        for start in range(0, len(items), 1 << 14):
            part = slice(start, start + (1 << 14))
            equal[part] = (self._signatures[items[part]] == signatures[passages[part]]).sum(axis=1)
        order = np.lexsort((passages, -equal, items))  # the earliest of equally good passages
        _, at = np.unique(items[order], return_index=True)
        return [(int(self._numbers[items[i]]), int(passages[i])) for i in order[at]]


def _richest(shingles: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the run of shingles, as long as the set `wanted`, in which the most shingles are wanted."""
    counts = np.cumsum([0, *np.isin(shingles, wanted)])
    length = min(len(wanted), len(shingles))
    start = int(np.argmax(counts[length:] - counts[: len(counts) - length]))
    return shingles[start : start + length]


def _band_keys(signatures: np.ndarray) -> np.ndarray:
    """Puts the two hashes of each band side by side: uint64[rows, bands]."""
    pairs = signatures.reshape(len(signatures), -1, _ROWS).astype(np.uint64)
    return (pairs[:, :, 0] << np.uint64(32)) | pairs[:, :, 1]
