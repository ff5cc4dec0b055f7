"""Mixtures: which row stands in which slot of a stage, for every arm, exactly and reproducibly."""

from alignpre_jax.mixture.base import BasePlan
from alignpre_jax.mixture.compare import Differences, differences, where
from alignpre_jax.mixture.fingerprint import fingerprint, fingerprint_on_device
from alignpre_jax.mixture.ledger import Ledger, ledger, render
from alignpre_jax.mixture.loader import Batch, load_batches
from alignpre_jax.mixture.overlays import Overlay, Remove, Replace
from alignpre_jax.mixture.plan import Lookup, Plan
from alignpre_jax.mixture.shares import parse_shares

__all__ = [
    "BasePlan",
    "Batch",
    "Differences",
    "Ledger",
    "Lookup",
    "Overlay",
    "Plan",
    "Remove",
    "Replace",
    "differences",
    "fingerprint",
    "fingerprint_on_device",
    "ledger",
    "load_batches",
    "parse_shares",
    "render",
    "where",
]
