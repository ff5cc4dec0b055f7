"""Leakage is found as the wordings that items share with documents."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator

from alignpre_jax.documents.document import Document


def ngrams(text: str, size: int) -> Iterator[tuple[str, ...]]:
    """Yields the word n-grams of a text, lower-cased and without punctuation."""
    words = re.findall(r"[\w-]+", text.lower())
    return zip(*(words[start:] for start in range(size)), strict=False)


def shared_ngrams(texts: Iterable[str], documents: Iterable[Document], size: int = 5) -> collections.Counter[str]:
    """Counts how many documents contain each word n-gram of `texts`; empty where no wording leaked."""
    wanted = {gram for text in texts for gram in ngrams(text, size)}
    found: collections.Counter[str] = collections.Counter()
    for document in documents:
        found.update(" ".join(gram) for gram in wanted & set(ngrams(document.text, size)))
    return found
