"""alignpre_jax: controlled alignment-pretraining experiments in JAX."""

__version__ = "0.1.0"
