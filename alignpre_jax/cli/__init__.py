"""`alignpre VERB`: parses flags, loads the config, calls one room.

Exit status: 0 done, 2 a mistake of the user's (message on stderr), 75 interrupted after
saving (the same command goes on), anything else a bug.
"""

from alignpre_jax.cli.main import VERBS, main

__all__ = ["VERBS", "main"]
