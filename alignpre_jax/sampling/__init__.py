"""Asking a model: log-probs of continuations and of whole texts, and new text."""

from alignpre_jax.sampling.engine import Buckets, Engine, Score
from alignpre_jax.sampling.strategies import Greedy, Strategy, Temperature, TopP

__all__ = ["Buckets", "Engine", "Greedy", "Score", "Strategy", "Temperature", "TopP"]
