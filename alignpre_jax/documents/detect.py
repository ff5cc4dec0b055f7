"""Strata by what documents speak of: AI discourse or not."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from alignpre_jax.documents.discourse import Hit, Hits, discourse_hits, scan, term_lists
from alignpre_jax.documents.document import Document

__all__ = ["Hit", "Hits", "assign_strata", "discourse_hits", "term_lists"]


def assign_strata(documents: Iterable[Document], source: str) -> Iterator[Document]:
    """Gives each document the stratum `source`/ai or `source`/plain, by the term lists."""
    documents, scanned = itertools.tee(documents)
    for document, hits in zip(documents, scan(document.text for document in scanned), strict=True):
        part = "ai" if hits.is_ai else "plain"
        yield dataclasses.replace(document, source=source, stratum=f"{source}/{part}")
