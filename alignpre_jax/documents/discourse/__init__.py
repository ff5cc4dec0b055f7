"""AI discourse is found in texts by folding them and matching term lists; rules decide on the hits."""

from alignpre_jax.documents.discourse.excerpts import Excerpt, excerpts
from alignpre_jax.documents.discourse.hits import Hit, Hits, Rule
from alignpre_jax.documents.discourse.lists import (
    ENTITIES,
    FAVOURABLE,
    INSTANT,
    LANGUAGES,
    NEGATIVE,
    UNFAVOURABLE,
    term_lists,
)
from alignpre_jax.documents.discourse.scan import discourse_hits, scan

__all__ = [
    "ENTITIES",
    "FAVOURABLE",
    "INSTANT",
    "LANGUAGES",
    "NEGATIVE",
    "UNFAVOURABLE",
    "Excerpt",
    "Hit",
    "Hits",
    "Rule",
    "discourse_hits",
    "excerpts",
    "scan",
    "term_lists",
]
