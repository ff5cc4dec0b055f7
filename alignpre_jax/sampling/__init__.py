"""Asks a model for log-probs of continuations and of whole texts, and for new text."""

from alignpre_jax.sampling.buckets import Buckets
from alignpre_jax.sampling.chat import chat_request
from alignpre_jax.sampling.conditional import conditional, marked
from alignpre_jax.sampling.constraints import Choice, Regex
from alignpre_jax.sampling.engine import Engine
from alignpre_jax.sampling.hosts import Led, follow
from alignpre_jax.sampling.log import Logged
from alignpre_jax.sampling.programs import keep_programs
from alignpre_jax.sampling.requests import Completion, Prompt, Request, Score
from alignpre_jax.sampling.safebeam import safe_beam
from alignpre_jax.sampling.strategies import Greedy, MinP, Strategy, Temperature, TopK, TopP

__all__ = [
    "Buckets",
    "Choice",
    "Completion",
    "Engine",
    "Greedy",
    "Led",
    "Logged",
    "MinP",
    "Prompt",
    "Regex",
    "Request",
    "Score",
    "Strategy",
    "Temperature",
    "TopK",
    "TopP",
    "chat_request",
    "conditional",
    "follow",
    "keep_programs",
    "marked",
    "safe_beam",
]
