"""`alignpre VERB`: parses flags, loads the config, calls one room.

Exit statuses are in `main.STATUSES`, which `alignpre --help` shows.
"""

from alignpre_jax.cli.main import VERBS, main

__all__ = ["VERBS", "main"]
