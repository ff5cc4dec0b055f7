"""This module says what of a model is learnt: all its parameters, low-rank adapters beside its matrices, or only the
parameters with certain names.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1) leaves a matrix W as it is and learns a product of two thin
matrices beside it: y = W x + s B (A x). The factors are rows of the parameter table like any other parameter,
"blocks.q_lora_a" and "blocks.q_lora_b": stacked over the layers, float32 whatever the dtype of W, and sharded by the
rules of W's own axes. The sum W + s B A is computed only when a model is merged, never in training.
Legend: S tokens, r rank, N layers.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model.config import DecoderConfig
from alignpre_jax.model.parameters import Extra, Parameter, initial_value, parameters
from alignpre_jax.model.trees import by_path, nest

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")  # every matrix of a block; "gate" only where the MLP has one


@dataclasses.dataclass(frozen=True)
class Full:
    """All parameters are learnt."""

    name: Literal["full"] = "full"


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank factors are learnt beside the matrices `targets` of every block; the model itself is frozen.

    Args:
      name: the tag by which a config names this choice.
      rank: r, the inner size of the factors.
      alpha: the scale's numerator.
      scale: s = alpha / r ("linear", Hu et al. 2021), or alpha / sqrt(r) ("sqrt", rsLoRA: Kalajdzievski 2023,
        arXiv 2312.03732, which keeps the size of an update the same at every rank).
      targets: names of matrices. "gate" is passed over in models whose MLP has none.
      init: which factor starts at 0, so that the adapted model starts as the base does. "b0": A ~ U(+-1/sqrt(inputs)),
        B = 0, as PEFT does (Kaiming with a = sqrt(5)). "a0": A = 0, B ~ U(+-1/sqrt(r)). With B = 0 and a loss whose
        gradient nearly cancels over the batch (DPO at its start), the sign of B's first gradient depends on the order
        in which devices add it up, and Adam's first step is that sign times the rate: two meshes then train two
        different models. "a0" does not have this fault.
    """

    name: Literal["lora"] = "lora"
    rank: int = 32
    alpha: float = 64.0
    scale: Literal["linear", "sqrt"] = "linear"
    targets: tuple[str, ...] = TARGETS
    init: Literal["b0", "a0"] = "b0"

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"a rank of {self.rank}", where="rank", fix="give a whole number of at least 1")
        if self.alpha <= 0:
            raise UserError(f"an alpha of {self.alpha}", where="alpha", fix="give a number above 0, such as 2 x rank")
        if not self.targets:
            raise UserError("no matrix is adapted", where="targets", fix=f"give some of {', '.join(TARGETS)}")
        for target in self.targets:
            if target not in TARGETS:
                raise UserError(f"no matrix is called {target!r}", where="targets", fix=suggest(target, TARGETS))

    @property
    def factor(self) -> float:
        """The scale s, by which the product of the factors is multiplied."""
        return self.alpha / (self.rank if self.scale == "linear" else math.sqrt(self.rank))

    def rows(self, table: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """Returns the factors of the adapted matrices in `table`: A [N, inputs..., r] and B [N, r, outputs...]."""
        rows: dict[str, Parameter] = {}
        for target in self.targets:
            path = f"blocks.{target}"
            if path not in table:
                continue
            matrix = table[path]
            split = len(matrix.shape) - matrix.outputs
            (layers, *inputs), outputs = matrix.shape[:split], matrix.shape[split:]
            a_bound, b_bound = 1 / math.sqrt(math.prod(inputs)), 1 / math.sqrt(self.rank)
            rows[f"{path}_lora_a"] = Parameter(
                (*matrix.shape[:split], self.rank),
                (*matrix.axes[:split], "rank"),
                bound=a_bound if self.init == "b0" else 0.0,
                outputs=1,
            )
            rows[f"{path}_lora_b"] = Parameter(
                (layers, self.rank, *outputs),
                ("layers", "rank", *matrix.axes[split:]),
                bound=b_bound if self.init == "a0" else 0.0,
                outputs=matrix.outputs,
            )
        return rows

    def in_use(self, weights: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns a layer's weights as the block reads them, with A multiplied by s.

        It is A that is multiplied because it is the smaller factor of most matrices.
        """
        return {name: self.factor * w if name.endswith("_lora_a") else w for name, w in weights.items()}


@dataclasses.dataclass(frozen=True)
class Only:
    """Only the parameters whose path, such as "blocks.q" or "final_norm", matches one of the `patterns` are learnt.

    Args:
      name: the tag by which a config names this choice.
      patterns: patterns like those of a shell: "blocks.q", "blocks.*_norm", "*embedding".
    """

    name: Literal["only"] = "only"
    patterns: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.patterns:
            raise UserError("nothing is learnt", where="patterns", fix='give patterns such as "blocks.q", "*_norm"')


Learn: TypeAlias = Full | Lora | Only


def extras_of(learn: Learn) -> tuple[Extra, ...]:
    """Returns what a way of learning adds to the parameter table: the adapters of `Lora`, nothing for the others."""
    return (learn,) if isinstance(learn, Lora) else ()


def trained_paths(config: DecoderConfig, learn: Learn) -> tuple[str, ...]:
    """Returns the paths of the parameters that are learnt, in the order of the table.

    Raises:
      UserError: a pattern matches no parameter, or none of the targets is in the model.
    """
    table = parameters(config)
    if isinstance(learn, Full):
        return tuple(table)
    if isinstance(learn, Lora):
        rows = tuple(learn.rows(table))
        if not rows:
            raise UserError(
                f"the model has none of {', '.join(learn.targets)}",
                where="learn.targets",
                fix=suggest("", [name.removeprefix("blocks.") for name, row in table.items() if row.outputs]),
            )
        return rows
    for pattern in learn.patterns:
        if not fnmatch.filter(table, pattern):
            raise UserError(f"no parameter matches {pattern!r}", where="learn.patterns", fix=suggest(pattern, table))
    return tuple(path for path in table if any(fnmatch.fnmatchcase(path, pattern) for pattern in learn.patterns))


def split(config: DecoderConfig, learn: Learn, params: nnx.State, seed: int | jax.Array) -> tuple[nnx.State, Any]:
    """Splits a model into the parameters with gradients and moments, and the rest, which no update ever touches.

    Args:
      config: the decoder's config.
      learn: what is learnt.
      params: the whole model in float32, without adapters.
      seed: the seed of fresh factors; a factor's values do not depend on which other matrices are adapted.

    Returns:
      (trained, frozen): `trained` is float32; `frozen` has the dtypes that `frozen_dtype` gives, or is None where
      everything is learnt.
    """
    if isinstance(learn, Full):
        return params, None
    leaves = by_path(params)
    paths = trained_paths(config, learn)
    if isinstance(learn, Lora):
        rows, key = learn.rows(parameters(config)), jax.random.key(seed)
        trained = {path: initial_value(path, rows[path], key) for path in paths}
    else:
        trained = {path: leaves[path] for path in paths}
    frozen = {path: x.astype(frozen_dtype(config, path)) for path, x in leaves.items() if path not in trained}
    return nest(trained), nest(frozen)


def frozen_dtype(config: DecoderConfig, path: str) -> str:
    """Returns the dtype in which a frozen parameter is kept, which is the one that it is computed with.

    So no bit of a result changes. A trained parameter is float32 because small updates would be lost otherwise; a
    frozen one has no updates.
    """
    return "float32" if path.removesuffix("_bias").endswith("_norm") else config.dtype


def join(trained: nnx.State, frozen: nnx.State | None) -> nnx.State:
    """Joins the two trees that `split` returns into the one that `bind` takes."""
    return trained if frozen is None else nest(by_path(frozen) | by_path(trained))


def merge(params: nnx.State | None, trained: nnx.State, learn: Learn, dtype: str = "") -> nnx.State:
    """Returns the whole model after training, as an ordinary model without adapters.

    Args:
      params: the model that training started from: all of it, or only its frozen part (None if nothing is frozen).
      trained: the parameters that were trained; with `Full` they are returned as they are.
      learn: what was learnt. With LoRA a merged matrix is W + s B A, computed in float32 and rounded once.
      dtype: the dtype of the merged model; by default that of `params`.
    """
    if isinstance(learn, Full):
        return trained
    assert params is not None
    leaves, found = by_path(params), by_path(trained)
    if isinstance(learn, Only):
        merged = leaves | found
    else:
        adapted = {path.removesuffix("_lora_a") for path in found if path.endswith("_lora_a")}
        merged = {
            path: _merged(leaf, found[f"{path}_lora_a"], found[f"{path}_lora_b"], learn.factor)
            if path in adapted
            else leaf
            for path, leaf in leaves.items()
        }
    return nest({path: leaf.astype(dtype or leaves.get(path, leaf).dtype) for path, leaf in merged.items()})


@functools.partial(jax.jit, static_argnames="factor")
def _merged(matrix: jax.Array, a: jax.Array, b: jax.Array, factor: float) -> jax.Array:
    layers, rank = a.shape[0], a.shape[-1]
    products = jnp.matmul(
        a.reshape(layers, -1, rank), b.reshape(layers, rank, -1), precision="highest", preferred_element_type="float32"
    )
    return matrix.astype(jnp.float32) + factor * products.reshape(matrix.shape)
