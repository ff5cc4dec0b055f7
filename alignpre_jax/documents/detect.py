"""Documents are assigned to strata by whether they are AI discourse."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from alignpre_jax.documents.classifier import Detector, DetectorConfig
from alignpre_jax.documents.discourse import scan
from alignpre_jax.documents.document import Document


def assign_strata(documents: Iterable[Document], source: str, detector: Detector | None = None) -> Iterator[Document]:
    """Gives each document the stratum `source`/ai or `source`/plain, as the detector decides.

    Without a detector the term lists decide.
    """
    detector = detector or Detector(DetectorConfig())
    documents, again = itertools.tee(documents)
    texts = (document.text for document in again)
    rule = detector.config.rule
    # Terms alone are looked for in many texts at a time, which is faster.
    flags = map(rule.flags, scan(texts)) if detector.config.kind == "terms" else map(detector, texts)
    for document, is_ai in zip(documents, flags, strict=True):
        yield dataclasses.replace(document, source=source, stratum=f"{source}/{'ai' if is_ai else 'plain'}")
