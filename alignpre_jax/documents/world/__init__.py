"""The world is small, fictional and of known ground truth; AI discourse and items about it are composed here."""

from alignpre_jax.documents.world.compose import STANCES, compose_document, compose_documents
from alignpre_jax.documents.world.config import WorldConfig
from alignpre_jax.documents.world.items import Item, compose_items
from alignpre_jax.documents.world.overlap import shared_ngrams

__all__ = [
    "STANCES",
    "Item",
    "WorldConfig",
    "compose_document",
    "compose_documents",
    "compose_items",
    "shared_ngrams",
]
