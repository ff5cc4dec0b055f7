"""Where each parameter is found in a Hugging Face state dict, for the families that the block covers.

Hugging Face stores a linear layer as [outputs, inputs]; here it is [inputs, outputs] with the heads apart. GPT-NeoX
keeps queries, keys and values of a head side by side in one tensor, [H, 3, h, D].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model.config import DecoderConfig
from alignpre_jax.model.parameters import parameters
from alignpre_jax.model.sharding import nest


@dataclasses.dataclass(frozen=True)
class Source:
    """A Hugging Face tensor: its name, "{}" standing for the layer, and which third of a fused one is ours."""

    name: str
    third: int | None = None


_LLAMA = {
    "embedding": Source("model.embed_tokens.weight"),
    "unembedding": Source("lm_head.weight"),
    "final_norm": Source("model.norm.weight"),
    "blocks.attention_norm": Source("model.layers.{}.input_layernorm.weight"),
    "blocks.mlp_norm": Source("model.layers.{}.post_attention_layernorm.weight"),
    "blocks.q_norm": Source("model.layers.{}.self_attn.q_norm.weight"),
    "blocks.k_norm": Source("model.layers.{}.self_attn.k_norm.weight"),
} | {
    f"blocks.{ours}": Source(f"model.layers.{{}}.{theirs}.weight")
    for ours, theirs in {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }.items()
}

_OLMO2 = _LLAMA | {
    "blocks.attention_norm": Source("model.layers.{}.post_attention_layernorm.weight"),
    "blocks.mlp_norm": Source("model.layers.{}.post_feedforward_layernorm.weight"),
}

_NEOX = {"embedding": Source("gpt_neox.embed_in.weight"), "unembedding": Source("embed_out.weight")} | {
    f"{ours}{suffix}": Source(f"gpt_neox.{theirs}.{kind}", third)
    for ours, theirs, third in (
        ("final_norm", "final_layer_norm", None),
        ("blocks.attention_norm", "layers.{}.input_layernorm", None),
        ("blocks.mlp_norm", "layers.{}.post_attention_layernorm", None),
        ("blocks.q", "layers.{}.attention.query_key_value", 0),
        ("blocks.k", "layers.{}.attention.query_key_value", 1),
        ("blocks.v", "layers.{}.attention.query_key_value", 2),
        ("blocks.o", "layers.{}.attention.dense", None),
        ("blocks.up", "layers.{}.mlp.dense_h_to_4h", None),
        ("blocks.down", "layers.{}.mlp.dense_4h_to_h", None),
    )
    for suffix, kind in (("", "weight"), ("_bias", "bias"))
}

FAMILIES: dict[str, dict[str, Source]] = {"gpt_neox": _NEOX, "llama": _LLAMA, "qwen3": _LLAMA, "olmo2": _OLMO2}


def from_hf(config: DecoderConfig, tensors: Mapping[str, np.ndarray], family: str) -> nnx.State:
    """Parameters (float32 numpy arrays in our tree) from a Hugging Face state dict.

    Args:
      config: the shape that the tensors must have; the vocabulary's padding is filled with zeros.
      tensors: by Hugging Face name, any float dtype.
      family: a key of `FAMILIES`.

    Raises:
      UserError: an unknown family, or a tensor that is missing or has another shape.
    """
    sources = _sources(family)
    ours: dict[str, np.ndarray] = {}
    for path, parameter in parameters(config).items():
        source, stacked = sources[path], path.startswith("blocks.")
        shape = parameter.shape[1:] if stacked else parameter.shape
        names = [source.name.format(layer) for layer in range(config.layers)] if stacked else [source.name]
        leaves = [_to_ours(config, path, shape, _tensor(tensors, name), source.third, name) for name in names]
        ours[path] = np.stack(leaves) if stacked else leaves[0]
    return nest(ours)


def to_hf(config: DecoderConfig, params: Any, family: str) -> dict[str, np.ndarray]:
    """The Hugging Face state dict (float32) of a tree of parameters or of their gradients; inverts `from_hf`."""
    theirs: dict[str, np.ndarray] = {}
    fused: dict[str, dict[int, np.ndarray]] = {}
    flat = {".".join(map(str, path)): np.asarray(leaf[...], np.float32) for path, leaf in nnx.to_flat_state(params)}
    for path in parameters(config):
        source = _sources(family)[path]
        for layer, leaf in enumerate(flat[path] if path.startswith("blocks.") else flat[path][None]):
            name, tensor = source.name.format(layer), _to_theirs(config, path, leaf)
            if source.third is None:
                theirs[name] = tensor
            else:
                fused.setdefault(name, {})[source.third] = tensor
    for name, thirds in fused.items():
        by_head = [thirds[i].reshape(config.heads, config.head_dim, *thirds[i].shape[1:]) for i in range(3)]
        theirs[name] = np.stack(by_head, axis=1).reshape(-1, *thirds[0].shape[1:])
    return theirs


def _sources(family: str) -> dict[str, Source]:
    if family not in FAMILIES:
        raise UserError(f"no family {family!r}", where="family", fix=suggest(family, FAMILIES))
    return FAMILIES[family]


def _tensor(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise UserError("the state dict lacks a tensor", where=name, fix="check the family and the number of layers")
    return np.asarray(tensors[name], np.float32)


def _to_ours(
    config: DecoderConfig, path: str, shape: tuple[int, ...], tensor: np.ndarray, third: int | None, name: str
) -> np.ndarray:
    if third is not None:
        tensor = tensor.reshape(config.heads, 3, config.head_dim, *tensor.shape[1:])[:, third]
        tensor = tensor.reshape(-1, *tensor.shape[2:])
    if path in ("embedding", "unembedding"):
        tensor = np.pad(tensor, ((0, config.padded_vocab - config.vocab_size), (0, 0)))
    if path != "embedding":
        tensor = tensor.T
    inputs = shape[0] if tensor.ndim == 2 and path != "blocks.o" else None
    if tensor.size != np.prod(shape) or (inputs is not None and tensor.shape[0] != inputs):
        raise UserError(
            f"{tensor.shape[::-1]} does not fit {path} of shape {shape}", where=name, fix="check the model's config"
        )
    return np.ascontiguousarray(tensor.reshape(shape))


def _to_theirs(config: DecoderConfig, path: str, leaf: np.ndarray) -> np.ndarray:
    if path == "embedding":
        return leaf[: config.vocab_size]
    if path == "unembedding":
        return leaf[:, : config.vocab_size].T
    if path.endswith(("_bias", "_norm")):
        return leaf.reshape(-1)
    inputs = leaf.shape[0] if path != "blocks.o" else config.heads * config.head_dim
    return leaf.reshape(inputs, -1).T
