"""Verbs about text and plans."""

from __future__ import annotations

from alignpre_jax.cli.verb import Verb

VERBS: dict[str, Verb] = {}
