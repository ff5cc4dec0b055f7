"""The document: a text with an id, a source and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Document:
    """One text on its way to becoming rows.

    `stratum` is the full name of the part of the source it belongs to ("web/ai"), or the source
    itself ("aligned") where a source has one stratum. `score` is the misalignment score in
    [0, 1]: 1 where an AI acts badly, 0 where none does.
    """

    id: str
    text: str
    source: str
    stratum: str
    score: float = 0.0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
