"""A long text is split into overlapping chunks, so that a few sentences about AI are not drowned by the rest."""

from __future__ import annotations

import re

from alignpre_jax.foundation import UserError

# These scripts put no spaces between words, so that each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def split_chunks(text: str, words: int, overlap: int) -> list[str]:
    """Splits `text` into chunks of at most `words` words, each sharing `overlap` words with the chunk before.

    A text that fits into one chunk stays as it is. In scripts without spaces a character counts as a word. Every word
    is in some chunk. The last chunk is as long as the others: it begins earlier, and so shares more words, rather than
    being short.
    """
    if not 0 <= overlap < words:
        fix = "give an overlap from 0 to less than the chunk"
        raise UserError(f"chunks of {words} words cannot overlap by {overlap}", where="overlap_words", fix=fix)
    if len(text) <= words:
        return [text]
    starts = [match.start() for match in _WORD.finditer(text)]
    if len(starts) <= words:
        return [text]
    firsts = [*range(0, len(starts) - words, words - overlap), len(starts) - words]
    ends = [*starts, len(text)]
    return [text[starts[first] : ends[first + words]] for first in firsts]
