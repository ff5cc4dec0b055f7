"""Words and word n-grams of many texts at once become 64-bit hashes in numpy arrays.

A word is a run of letters, marks and digits after NFKC and case folding, character by character. Every ideograph, kana
and character beyond the BMP is a word of its own, since those scripts put no spaces between words. The hash of a word
is the polynomial sum(c_i * B^i) mod 2^64 of its characters, mixed; the hash of an n-gram is the polynomial of its
words' hashes. Equal n-grams have equal hashes; among a billion different n-grams the chance of one false match with a
million others is below 1 in 10,000.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

_CHARACTER = np.uint64(0x9E3779B97F4A7C15)  # base of a word's polynomial: odd, so that it has an inverse mod 2^64
_WORD = np.uint64(0xD1342543DE82EF95)  # base of an n-gram's polynomial
_PIECE = 1 << 20  # characters hashed at once; bounds the memory that a very long text takes
_ALONE = (("一", "鿿"), ("㐀", "䶿"), ("぀", "ヿ"))


def hash_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes the words of `texts`: returns uint64[n], and the index of the text that each word is in, int64[n]."""
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    fold, kind = _characters()
    hashes, starts, done = [], [], 0
    while done < len(codes):
        piece = codes[done : done + _PIECE]
        kinds = kind[np.minimum(piece, len(kind) - 1)]
        if done + len(piece) < len(codes) and (gaps := np.flatnonzero(kinds == 0)).size:
            piece, kinds = piece[: gaps[-1] + 1], kinds[: gaps[-1] + 1]  # the piece is not cut through a word
        folded = fold[np.minimum(piece, len(fold) - 1)]
        if kinds.max() == 2:  # characters beyond the BMP are not folded
            folded = np.where(piece < len(fold), folded, piece)
        found, at = _hash_piece(folded, kinds)
        hashes.append(found)
        starts.append(at + done)
        done += len(piece)
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    ends = np.cumsum(np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts)))
    return np.concatenate(hashes), np.searchsorted(ends, np.concatenate(starts), side="right")


def hash_ngrams(words: np.ndarray, texts: np.ndarray, sizes: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Hashes all word n-grams, for each of the increasing `sizes`.

    Yields:
      (n, uint64[words - n + 1]): the n-gram that starts at each word. An n-gram that crosses into the next text is 0,
      which the hash of a true n-gram never is.
    """
    grams = words.copy()
    for size in range(1, max(sizes) + 1):
        if size > 1:
            grams = grams[: max(0, len(words) - size + 1)] * _WORD + words[size - 1 :]
        if size in sizes:
            inside = texts[: len(grams)] == texts[size - 1 :]
            yield size, np.where(inside, np.maximum(grams, np.uint64(1)), np.uint64(0))


class Lookup:
    """A `Lookup` finds which of many hashes are in a fixed set: by a table of bits first, then by a binary search."""

    def __init__(self, hashes: np.ndarray):
        """Prepares the set of `hashes`, uint64, which may come in any order."""
        self.hashes = np.unique(hashes)
        bits = min(26, max(12, int(8 * len(self.hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[self.hashes >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds which of `hashes` (uint64[n]) are in the set: their positions, and their indices in `self.hashes`."""
        positions = np.flatnonzero(self._table[hashes >> self._shift])
        asked = hashes[positions]
        indices = np.searchsorted(self.hashes, asked)
        there = np.minimum(indices, max(0, len(self.hashes) - 1))
        same = self.hashes[there] == asked if len(self.hashes) else np.zeros(len(asked), bool)
        return positions[same], there[same]


def _hash_piece(characters: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hashes of the words in a piece of text, and where the words start."""
    word, letter = kinds > 0, kinds == 1
    joined = letter[1:] & letter[:-1]
    start, end = word.copy(), word.copy()
    start[1:] &= ~joined
    end[:-1] &= ~joined
    starts, ends = np.flatnonzero(start), np.flatnonzero(end) + 1
    powers, inverses = _powers()
    sums = np.zeros(len(characters) + 1, np.uint64)
    np.cumsum((characters + np.uint64(1)) * powers[: len(characters)], out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * inverses[starts]
    hashes ^= hashes >> np.uint64(30)  # the finaliser of splitmix64 (Steele, Lea & Flood 2014)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes, starts


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Returns B^i and B^-i mod 2^64 for every place in a piece."""
    bases = np.array([_CHARACTER, pow(int(_CHARACTER), -1, 1 << 64)], np.uint64)
    powers = np.ones((2, _PIECE), np.uint64)
    powers[:, 1:] = np.cumprod(np.repeat(bases[:, None], _PIECE - 1, axis=1), axis=1)
    return powers[0], powers[1]


@functools.cache
def _characters() -> tuple[np.ndarray, np.ndarray]:
    """Returns what each character of the BMP is folded to, and its kind: 0 between words, 1 in a word, 2 a word alone.

    The array of kinds has one entry more, which stands for all characters beyond the BMP.
    """
    fold, kind = np.arange(0x10000, dtype=np.uint64), np.zeros(0x10001, np.uint8)
    for code in range(0x10000):
        folded = unicodedata.normalize("NFKC", chr(code)).casefold() if code < 0xD800 or code > 0xDFFF else ""
        if len(folded) == 1:
            fold[code] = ord(folded)
        kind[code] = unicodedata.category(chr(int(fold[code])))[0] in "LMN"
    for first, last in _ALONE:
        span = slice(ord(first), ord(last) + 1)
        kind[span] = np.where(kind[span] > 0, 2, 0)
    kind[-1] = 2
    return fold, kind
