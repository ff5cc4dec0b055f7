"""A mixture says which row stands in which slot of a stage, for every arm, exactly and reproducibly."""

from alignpre_jax.mixture.base import BasePlan
from alignpre_jax.mixture.compare import Differences, differences, where
from alignpre_jax.mixture.fingerprint import fingerprint, fingerprint_on_device
from alignpre_jax.mixture.inspection import batch_at, diff, show, where_document
from alignpre_jax.mixture.ledger import Counted, Ledger, check, ledger, render
from alignpre_jax.mixture.loader import Batch, load_batches
from alignpre_jax.mixture.overlays import Overlay, Remove, Replace
from alignpre_jax.mixture.plan import Lookup, Plan
from alignpre_jax.mixture.shares import Shares, parse_schedule, parse_shares

__all__ = [
    "BasePlan",
    "Batch",
    "Counted",
    "Differences",
    "Ledger",
    "Lookup",
    "Overlay",
    "Plan",
    "Remove",
    "Replace",
    "Shares",
    "batch_at",
    "check",
    "diff",
    "differences",
    "fingerprint",
    "fingerprint_on_device",
    "ledger",
    "load_batches",
    "parse_schedule",
    "parse_shares",
    "render",
    "show",
    "where",
    "where_document",
]
