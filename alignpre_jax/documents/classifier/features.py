"""The features of a text are its hashed word and character n-grams, weighted and normalised, with numpy alone.

A text is folded (NFKC, lower case, single spaces) and read as code points c_0 c_1 ... Every n-gram is a span of them,
and gets the polynomial hash sum_k c_{start+k} P^k mod 2^64, which is a difference of two prefix sums: all n-grams of a
text are hashed in a few array operations, in any script. Words are runs of letters and digits.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata

import numpy as np

from alignpre_jax.foundation import UserError

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse mod 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_WORD_SALT, _PAIR_SALT, _CHARACTER_SALT = np.uint64(0xD6E8FEB8), np.uint64(0xA5A35625), np.uint64(0x8CB92BA7)


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """A `FeatureConfig` says which n-grams are counted, and in how many buckets.

    Attributes:
      buckets: a power of two; words use the first half of the buckets, characters the second.
      word_pairs: whether two words in a row count as well as each word.
      characters: the lengths of the character n-grams, which run over the spaces between words.
    """

    buckets: int = 1 << 16
    word_pairs: bool = False
    characters: tuple[int, ...] = (3, 4, 5)

    def __post_init__(self):
        if self.buckets < 16 or self.buckets & (self.buckets - 1):
            raise UserError(f"{self.buckets} is no power of two above 8", where="buckets", fix="give e.g. 65536")
        if not self.characters or min(self.characters) < 1:
            raise UserError(f"no lengths of n-grams: {self.characters}", where="characters", fix="give e.g. (3, 4, 5)")


def count_features(text: str, config: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns the buckets that occur in a text, int64[n] in order, and how often each occurs, float64[n]."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    codes = np.frombuffer(f" {folded} ".encode("utf-32-le", "replace"), "<u4")
    powers, inverses = _powers((len(codes) >> 12) + 1)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])

    def hashes(starts: np.ndarray, ends: np.ndarray, salt: np.uint64) -> np.ndarray:
        return _mixed((sums[ends] - sums[starts]) * inverses[starts] ^ salt)

    inside = np.char.isalnum(codes.view("<U1"))
    edges = np.flatnonzero(np.diff(inside)) + 1  # the text begins and ends with a space: starts and ends alternate
    words = hashes(edges[::2], edges[1::2], _WORD_SALT)
    groups = [words]
    if config.word_pairs:
        groups.append(_mixed(words[:-1] * np.uint64(_BASE) + words[1:] ^ _PAIR_SALT))
    half = np.uint64(config.buckets // 2)
    of_words = np.concatenate(groups) % half
    spans = [np.arange(max(len(codes) - length + 1, 0)) for length in config.characters]
    of_characters = np.concatenate(
        [hashes(s, s + length, _CHARACTER_SALT) for s, length in zip(spans, config.characters, strict=True)]
    )
    every = np.concatenate([of_words, of_characters % half + half]).astype(np.int64)
    counts = np.bincount(every, minlength=config.buckets)
    found = np.flatnonzero(counts)
    return found, counts[found].astype(np.float64)


def weigh(found: np.ndarray, counts: np.ndarray, rarity: np.ndarray) -> np.ndarray:
    """Weighs the features of a text as (1 + log count) x rarity; float64[n].

    Words and characters are each scaled to the length sqrt(1/2), so that both count equally and the whole has length 1.

    Args:
      found: the buckets in use, as `count_features` returns them.
      counts: how often each of them occurs.
      rarity: float64[buckets], the weight of each bucket.
    """
    values = (1 + np.log(counts)) * rarity[found]
    words = np.searchsorted(found, len(rarity) // 2)
    for part in (values[:words], values[words:]):
        if part.size:
            part /= np.sqrt(2 * np.dot(part, part))
    return values


def rarity_of(documents_with: np.ndarray, documents: int) -> np.ndarray:
    """Returns the inverse document frequency of each bucket, log((1 + n) / (1 + n_b)) + 1; float64[buckets]."""
    return np.log((1 + documents) / (1 + documents_with.astype(np.float64))) + 1


@functools.lru_cache(maxsize=2)
def _powers(blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first 4096 x `blocks` powers of the base and of its inverse, mod 2^64."""
    one = np.ones(blocks << 12, np.uint64)
    powers, inverses = one.copy(), one.copy()
    powers[1:], inverses[1:] = _BASE, _INVERSE
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Applies the finaliser of SplitMix64, by which every bit of the input reaches every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
