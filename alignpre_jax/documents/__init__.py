"""Documents: read, harvested from installed packages or composed; AI discourse detected; duplicates removed."""

from alignpre_jax.documents.detect import Hit, Hits, assign_strata, discourse_hits, term_lists
from alignpre_jax.documents.document import Document
from alignpre_jax.documents.harvest import harvest_packages
from alignpre_jax.documents.quarantine import Case, Quarantine
from alignpre_jax.documents.readers import deduplicate, read_inputs
from alignpre_jax.documents.world import Item, WorldConfig, compose_documents, compose_items

__all__ = [
    "Case",
    "Document",
    "Hit",
    "Hits",
    "Item",
    "Quarantine",
    "WorldConfig",
    "assign_strata",
    "compose_documents",
    "compose_items",
    "deduplicate",
    "discourse_hits",
    "harvest_packages",
    "read_inputs",
    "term_lists",
]
