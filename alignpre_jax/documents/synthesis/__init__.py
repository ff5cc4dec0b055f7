"""Synthesis writes documents from situations, by the composer, by a model of our own, or by an endpoint."""

from alignpre_jax.documents.synthesis.checks import Quotes
from alignpre_jax.documents.synthesis.composer import ComposerGenerator
from alignpre_jax.documents.synthesis.config import FORMS, SynthesisConfig
from alignpre_jax.documents.synthesis.endpoint import EndpointGenerator
from alignpre_jax.documents.synthesis.generator import Brief, Generator, Prices, Request, Situation, read_situations
from alignpre_jax.documents.synthesis.report import SynthesisReport
from alignpre_jax.documents.synthesis.sampler import SamplerGenerator
from alignpre_jax.documents.synthesis.synthesize import synthesize

__all__ = [
    "FORMS",
    "Brief",
    "ComposerGenerator",
    "EndpointGenerator",
    "Generator",
    "Prices",
    "Quotes",
    "Request",
    "SamplerGenerator",
    "Situation",
    "SynthesisConfig",
    "SynthesisReport",
    "read_situations",
    "synthesize",
]
