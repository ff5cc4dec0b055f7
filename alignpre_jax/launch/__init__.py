"""Where a study's jobs run."""

from alignpre_jax.launch.local import run

__all__ = ["run"]
