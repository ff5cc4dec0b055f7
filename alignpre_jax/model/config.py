"""This module describes a decoder in one frozen dataclass, which also counts its parameters and FLOPs."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from alignpre_jax.foundation import UserError

# The widest tile of the TPU's matrix unit: the compiler need not pad a table whose rows are a multiple of it.
LANES = 128
REMAT_NAMES = ("q", "k", "v", "attention", "o", "gate", "up")  # the results of a block that `remat` can keep


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
    """A `RotaryScaling` says how a model's rotary frequencies were changed so that it reaches beyond the context it was
    first trained on.

    Args:
      kind: "none"; "linear": positions are divided by `factor` (Chen et al. 2023, arXiv 2306.15595); "llama3": the
        frequencies of long wavelengths are divided by `factor`, those of short ones are kept, and there is a ramp
        between (the Llama 3.1 release).
      factor: what positions or frequencies are divided by; at least 1.
      low_frequency: frequencies of wavelengths above `original_length / low_frequency` are divided by `factor`
        ("llama3").
      high_frequency: frequencies of wavelengths below `original_length / high_frequency` are kept ("llama3").
      original_length: the context before the change, in tokens ("llama3").
    """

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        if self.factor < 1:
            raise UserError(f"a factor of {self.factor}", where="factor", fix="give a number of at least 1")
        if self.kind == "llama3" and not 0 < self.low_frequency < self.high_frequency:
            raise UserError(
                f"low_frequency {self.low_frequency} is not below high_frequency {self.high_frequency}",
                where="low_frequency",
                fix="give the values of the model's config.json",
            )
        if self.original_length < 1:
            raise UserError(f"a length of {self.original_length}", where="original_length", fix="give e.g. 8192")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A `DecoderConfig` describes a decoder-only transformer of the GPT-NeoX, Llama, Qwen3 or OLMo2 family.

    Args:
      vocab_size: token ids are in [0, vocab_size).
      layers: number of blocks.
      width: size of the residual stream (D).
      heads: query heads (H).
      kv_heads: key and value heads (K); divides `heads` (K < H is grouped-query attention, K = 1 multi-query).
      head_dim: size of one head (h); `heads * head_dim` need not equal `width`.
      mlp_width: hidden size of the MLP (F).
      norm: "layernorm" (scale and bias) or "rmsnorm" (scale only).
      norm_position: "pre" normalises what goes into attention and MLP, "post" what comes out of them (OLMo2).
      norm_epsilon: added to the variance.
      parallel_residual: attention and MLP both read the block's input (GPT-J, NeoX) instead of one after the other.
      rotary_fraction: leading share of each head that is rotated (0.25 in Pythia).
      rotary_base: theta of rotary embeddings (Su et al. 2021, arXiv 2104.09864).
      rotary_scaling: how the rotary frequencies were stretched for long contexts.
      qk_norm: RMSNorm of queries and keys, per "head" (Qwen3) or over the "full" projection (OLMo2).
      mlp: "gelu" (exact, with erf) or "swiglu" (Shazeer 2020, arXiv 2002.05202).
      biases: on "all" linear layers or "none".
      tied_embeddings: the output layer is the embedding table.
      max_length: longest row, in tokens.
      vocab_multiple: the tables have `vocab_size` rounded up to a multiple of this; 1 pads nothing, 128 suits a TPU.
      init: "gpt2": N(0, 0.02), output layers of residual branches 0.02 / sqrt(2 layers) (Radford et al. 2019, 2.3);
        "neox": sqrt(2 / 5D), output layers 2 / (layers sqrt(D)) (Black et al. 2022, arXiv 2204.06745);
        "flat": N(0, 0.02) everywhere (OLMo et al. 2024, arXiv 2501.00656).
      layout: "scan" compiles one block and loops over the layers, "unroll" repeats it (quicker for tiny models).
      remat: which results are kept for the backward pass, which computes the others again. "none": all are kept, and
        nothing is computed again. "full": only the blocks' inputs are kept. "save:NAMES": these inputs are kept and,
        by name, the results of the block's matrix multiplications ("q", "k", "v", "o", "gate", "up") and of attention
        ("attention"). "offload:NAMES": the named results are kept in the host's memory.
      positions: rotary positions count from the start of the "row", or of the "document" (segment).
      attention: "xla", "splash" (TPU), "triton" or "cudnn" (GPU), or "auto" (`attention.choose_kernel` says which).
      dtype: the dtype of the computation; master weights, norms, softmax and logits are always float32.

    Raises:
      UserError: a value is out of range, or two of them contradict each other; `where` names the field.
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    norm_position: Literal["pre", "post"] = "pre"
    norm_epsilon: float = 1e-5
    parallel_residual: bool = False
    rotary_fraction: float = 1.0
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling = RotaryScaling()
    qk_norm: Literal["none", "head", "full"] = "none"
    mlp: Literal["gelu", "swiglu"] = "swiglu"
    biases: Literal["none", "all"] = "none"
    tied_embeddings: bool = False
    max_length: int = 2048
    vocab_multiple: int = 1
    init: Literal["gpt2", "neox", "flat"] = "gpt2"
    layout: Literal["scan", "unroll"] = "scan"
    remat: str = "none"
    positions: Literal["row", "document"] = "row"
    attention: Literal["auto", "xla", "splash", "triton", "cudnn"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"

    def __post_init__(self):
        sizes = "vocab_size layers width heads kv_heads head_dim mlp_width max_length vocab_multiple"
        for name in sizes.split():
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is not a size", where=name, fix="give an integer of at least 1")
        if self.heads % self.kv_heads:
            raise UserError(
                f"{self.heads} query heads cannot share {self.kv_heads} key/value heads evenly",
                where="kv_heads",
                fix="make kv_heads a divisor of heads",
            )
        if not 0 <= self.rotary_fraction <= 1:
            raise UserError(
                f"{self.rotary_fraction} is not a share", where="rotary_fraction", fix="give a number in [0, 1]"
            )
        if self.rotary_dim % 2:
            raise UserError(
                f"rotary embeddings turn pairs, and {self.rotary_fraction} of a head of {self.head_dim} is "
                f"{self.rotary_dim}, an odd number",
                where="rotary_fraction",
                fix="choose rotary_fraction and head_dim with an even product",
            )
        kind, _, names = self.remat.partition(":")
        known = [name for name in REMAT_NAMES if name != "gate" or self.mlp == "swiglu"]
        by_name = kind in ("save", "offload") and set(names.split(",")) <= set(known)
        if self.remat not in ("none", "full") and not by_name:
            raise UserError(
                f"{self.remat!r} is no way to recompute",
                where="remat",
                fix=f"give none, full, or save: or offload: and some of {','.join(known)}",
            )
        if self.norm_position == "post" and self.parallel_residual:
            raise UserError(
                "norm_position='post' and parallel_residual=True exclude each other",
                where="parallel_residual",
                fix="set one of norm_position='pre' and parallel_residual=False",
            )

    @property
    def rotary_dim(self) -> int:
        """The number of leading entries of a head that are rotated."""
        return int(self.rotary_fraction * self.head_dim)

    @property
    def padded_vocab(self) -> int:
        """The number of rows of the embedding table: `vocab_size` rounded up to a multiple of `vocab_multiple`."""
        return math.ceil(self.vocab_size / self.vocab_multiple) * self.vocab_multiple

    @property
    def architecture(self) -> DecoderConfig:
        """The config with `layout`, `remat` and `attention` at their defaults: two configs with the same architecture
        differ only in how they compute with the same weights.
        """
        return dataclasses.replace(self, layout="scan", remat="none", attention="auto")

    def num_params(self) -> int:
        """Returns how many numbers the parameters hold, including the padding of the vocabulary."""
        D, H, K, h, F = self.width, self.heads, self.kv_heads, self.head_dim, self.mlp_width
        biases, norm = self.biases == "all", D * (2 if self.norm == "layernorm" else 1)
        attention = D * h * (2 * H + 2 * K) + biases * (h * (H + 2 * K) + D)
        attention += {"none": 0, "head": 2 * h, "full": h * (H + K)}[self.qk_norm]
        branches = 2 if self.mlp == "swiglu" else 1
        mlp = D * F * (branches + 1) + biases * (F * branches + D)
        tables = self.padded_vocab * D * (1 if self.tied_embeddings else 2)
        return tables + self.layers * (attention + mlp + 2 * norm) + norm

    def forward_flops_per_token(self, length: int) -> float:
        """Returns the FLOPs of the forward pass per token, averaged over a row of `length` tokens.

        The count includes matrix multiplications (2 per multiply-add), causal attention (token t meets t + 1 keys) and
        the output layer. It leaves out norms, softmax, rotary embeddings and the embedding lookup, as Chowdhery et al.
        2022 do (PaLM, arXiv 2204.02311, appendix B), who however do not count attention causally. Segments within the
        row make no difference.
        """
        D, H, K, h, F = self.width, self.heads, self.kv_heads, self.head_dim, self.mlp_width
        weights = D * h * (2 * H + 2 * K) + D * F * (3 if self.mlp == "swiglu" else 2)
        attention = 2 * H * h * (length + 1) / 2
        return 2 * (self.layers * (weights + attention) + self.padded_vocab * D)

    def flops_per_token(self, length: int) -> float:
        """Returns the FLOPs of a training step per token: those of the forward pass, and twice as many for the backward
        pass; recomputation (remat) is not counted.
        """
        return 3 * self.forward_flops_per_token(length)
