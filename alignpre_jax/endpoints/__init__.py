"""This package asks other people's models: an OpenAI-compatible endpoint, whose answers are kept on disk."""

from alignpre_jax.endpoints.cache import Cache
from alignpre_jax.endpoints.calls import read_completion
from alignpre_jax.endpoints.config import EndpointConfig
from alignpre_jax.endpoints.endpoint import Endpoint
from alignpre_jax.endpoints.question import Asked, Completion, Question, prompt_bound

__all__ = [
    "Asked",
    "Cache",
    "Completion",
    "Endpoint",
    "EndpointConfig",
    "Question",
    "prompt_bound",
    "read_completion",
]
