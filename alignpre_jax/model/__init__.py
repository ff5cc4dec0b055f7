"""This package holds the decoder, its sharding, its presets, and the names of its weights in other formats."""

from alignpre_jax.model.adapters import Full, Learn, Lora, Only, extras_of, join, merge, split, trained_paths
from alignpre_jax.model.attention import choose_kernel
from alignpre_jax.model.cache import Cache, init_cache
from alignpre_jax.model.config import DecoderConfig, RotaryScaling
from alignpre_jax.model.decoder import Decoder, bind, init_params
from alignpre_jax.model.inference import InferenceWeights, inference_weights
from alignpre_jax.model.mesh import parse_mesh
from alignpre_jax.model.parameters import Parameter, parameters
from alignpre_jax.model.presets import PRESETS, get_preset
from alignpre_jax.model.sharding import constrain, logical_axes, make_mesh, param_shardings

__all__ = [
    "PRESETS",
    "Cache",
    "Decoder",
    "DecoderConfig",
    "Full",
    "InferenceWeights",
    "Learn",
    "Lora",
    "Only",
    "Parameter",
    "RotaryScaling",
    "bind",
    "choose_kernel",
    "constrain",
    "extras_of",
    "get_preset",
    "inference_weights",
    "init_cache",
    "init_params",
    "join",
    "logical_axes",
    "make_mesh",
    "merge",
    "param_shardings",
    "parameters",
    "parse_mesh",
    "split",
    "trained_paths",
]
