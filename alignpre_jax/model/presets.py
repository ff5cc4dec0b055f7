"""This module names model shapes; `dataclasses.replace` changes what a study wants to be different."""

from __future__ import annotations

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model.config import LANES, DecoderConfig


def _pythia(layers: int, width: int, heads: int) -> DecoderConfig:
    """Returns a Pythia model's shape, from Biderman et al. 2023 (arXiv 2304.01373), table 1.

    The vocabulary is that of the GPT-NeoX-20B tokenizer, padded to 50,304.
    """
    return DecoderConfig(
        vocab_size=50_304,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_width=4 * width,
        norm="layernorm",
        parallel_residual=True,
        rotary_fraction=0.25,
        mlp="gelu",
        biases="all",
        init="neox",
        max_length=2048,
    )


def _llama2(layers: int, width: int, heads: int, mlp_width: int) -> DecoderConfig:
    """Returns a Llama 2 model's shape, from Touvron et al. 2023 (arXiv 2307.09288) and the released config."""
    return DecoderConfig(
        vocab_size=32_000,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_width=mlp_width,
        max_length=4096,
        vocab_multiple=LANES,
    )


def _smollm2(layers: int, width: int, heads: int, kv_heads: int, mlp_width: int, base: float) -> DecoderConfig:
    """Returns a SmolLM2 model's shape, from Allal et al. 2025 (arXiv 2502.02737) and the released configs."""
    return DecoderConfig(
        vocab_size=49_152,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=64,
        mlp_width=mlp_width,
        rotary_base=base,
        tied_embeddings=True,
        max_length=8192,
    )


def _qwen3(layers: int, width: int, heads: int, mlp_width: int, tied: bool) -> DecoderConfig:
    """Returns a Qwen3 model's shape, from Yang et al. 2025 (arXiv 2505.09388), table 1, and the released configs."""
    return DecoderConfig(
        vocab_size=151_936,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        mlp_width=mlp_width,
        norm_epsilon=1e-6,
        rotary_base=1_000_000.0,
        qk_norm="head",
        tied_embeddings=tied,
        max_length=32_768,
    )


def _olmo2(layers: int, width: int, heads: int, mlp_width: int) -> DecoderConfig:
    """Returns an OLMo 2 model's shape, from OLMo et al. 2024 (arXiv 2501.00656) and the released configs."""
    return DecoderConfig(
        vocab_size=100_352,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_width=mlp_width,
        norm_position="post",
        norm_epsilon=1e-6,
        rotary_base=500_000.0,
        qk_norm="full",
        init="flat",
        max_length=4096,
    )


# About a million parameters, for two CPU cores: few wide heads, a tied table and no loop over the layers, because
# at this size the time goes into everything but the large matrix multiplications.
SMALL_WORLD = DecoderConfig(
    vocab_size=2048,
    layers=3,
    width=128,
    heads=2,
    kv_heads=2,
    head_dim=64,
    mlp_width=384,
    tied_embeddings=True,
    init="neox",
    max_length=128,
    layout="unroll",
    attention="xla",
    dtype="float32",
)

PRESETS: dict[str, DecoderConfig] = {
    "small_world": SMALL_WORLD,
    "pythia_14m": _pythia(6, 128, 4),
    "pythia_70m": _pythia(6, 512, 8),
    "pythia_160m": _pythia(12, 768, 12),
    "pythia_410m": _pythia(24, 1024, 16),
    "pythia_1p4b": _pythia(24, 2048, 16),
    "pythia_6p9b": _pythia(32, 4096, 32),
    "llama2_7b": _llama2(32, 4096, 32, 11_008),
    "smollm2_135m": _smollm2(30, 576, 9, 3, 1536, 100_000.0),
    "smollm2_360m": _smollm2(32, 960, 15, 5, 2560, 100_000.0),
    "smollm2_1p7b": _smollm2(24, 2048, 32, 32, 8192, 130_000.0),
    "qwen3_0p6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3_8b": _qwen3(36, 4096, 32, 12_288, tied=False),
    "olmo2_1b": _olmo2(16, 2048, 16, 8192),
    "olmo2_7b": _olmo2(32, 4096, 32, 11_008),
}


def get_preset(name: str) -> DecoderConfig:
    """Returns the preset called `name`.

    Raises:
      UserError: no preset has this name; the error suggests one.
    """
    if name not in PRESETS:
        raise UserError(f"no model preset is called {name!r}", where="model.preset", fix=suggest(name, PRESETS))
    return PRESETS[name]
