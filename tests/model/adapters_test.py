"""Adapters: zero at the start to the bit, PEFT's formula and initial values, merging, what is trained and frozen."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.foundation import UserError, build
from alignpre_jax.model import (
    DecoderConfig,
    Full,
    Lora,
    Only,
    bind,
    decoder,
    extras_of,
    init_params,
    join,
    merge,
    parameters,
    split,
    trained_paths,
)
from alignpre_jax.model.trees import by_path, nest

BASE = DecoderConfig(
    vocab_size=30, layers=2, width=16, heads=4, kv_heads=2, head_dim=8, mlp_width=24, max_length=32,
    layout="scan", dtype="float32",
)  # fmt: skip
SHAPES = {
    "llama": BASE,
    "tied": dataclasses.replace(BASE, tied_embeddings=True, vocab_multiple=8, layout="unroll"),
    "remat": dataclasses.replace(BASE, remat="save:up,attention"),
    "bfloat16": dataclasses.replace(BASE, dtype="bfloat16"),
    "bfloat16 unrolled": dataclasses.replace(BASE, dtype="bfloat16", layout="unroll", remat="full"),
    "neox": dataclasses.replace(
        BASE, kv_heads=4, norm="layernorm", parallel_residual=True, rotary_fraction=0.25, mlp="gelu", biases="all"
    ),
    "olmo2": dataclasses.replace(BASE, norm_position="post", qk_norm="full", dtype="bfloat16"),
}
LORA = Lora(rank=4, alpha=8.0)


def logits_of(config, params, learn=None):
    tokens = jax.random.randint(jax.random.key(0), (2, 9), 0, config.vocab_size)

    def logits(params):
        model = bind(config, params, extras_of(learn or Full()))
        return model.unembed(model(tokens))[..., : config.vocab_size]

    return np.asarray(jax.jit(logits)(params))


def trained_model(config, learn, seed=0):
    """(base, factors that are all random, as training makes them, frozen)."""
    base = init_params(config, seed)
    trained, frozen = split(config, learn, base, seed)
    keys = jax.random.split(jax.random.key(9), len(by_path(trained)))
    moved = {
        path: x + 0.05 * jax.random.normal(key, x.shape)
        for key, (path, x) in zip(keys, by_path(trained).items(), strict=True)
    }
    return base, nest(moved), frozen


@pytest.mark.parametrize("init", ["b0", "a0"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("by_head", [False, True])
def test_fresh_adapters_change_no_bit(shape, init, by_head, monkeypatch):
    monkeypatch.setattr(decoder, "_by_head", lambda: by_head)
    config, learn = SHAPES[shape], dataclasses.replace(LORA, init=init)
    base = init_params(config, 0)
    trained, frozen = split(config, learn, base, 1)
    assert any(np.any(np.asarray(x)) for x in jax.tree.leaves(trained))
    fresh, plain = logits_of(config, join(trained, frozen), learn), logits_of(config, base)
    zeros = jax.tree.map(jnp.zeros_like, trained)
    np.testing.assert_array_equal(fresh, logits_of(config, join(zeros, frozen), learn))
    if config.norm_position == "post":  # the norm reads the product, and its sum is compiled to another order
        np.testing.assert_allclose(fresh, plain, atol=2e-2)  # of bfloat16
    else:
        np.testing.assert_array_equal(fresh, plain)


def test_initial_values_are_those_of_peft():
    """Kaiming uniform with a = sqrt(5), which PEFT gives A, is U(+-1/sqrt(inputs)); B is zero."""
    config = dataclasses.replace(BASE, width=64, layers=3)
    factors = by_path(split(config, dataclasses.replace(LORA, rank=32), init_params(config, 0), 1)[0])
    for target, inputs in (("q", 64), ("o", 32), ("up", 64), ("down", 24)):
        a = np.asarray(factors[f"blocks.{target}_lora_a"])
        bound = math.sqrt(6 / ((1 + 5) * inputs))
        assert 0.95 * bound < np.abs(a).max() <= bound, target
        assert a.std() == pytest.approx(bound / math.sqrt(3), rel=0.05), target
        assert not np.any(factors[f"blocks.{target}_lora_b"])
    assert not np.array_equal(factors["blocks.q_lora_a"][0], factors["blocks.q_lora_a"][1])


def test_a0_is_the_other_way_round():
    learn = dataclasses.replace(LORA, init="a0", rank=16)
    factors = by_path(split(BASE, learn, init_params(BASE, 0), 1)[0])
    assert not np.any(factors["blocks.down_lora_a"])
    assert 0.9 / 4 < np.abs(factors["blocks.down_lora_b"]).max() <= 1 / 4


def test_a_factor_does_not_depend_on_what_else_is_adapted_nor_the_base_on_factors():
    base = init_params(BASE, 0)
    few, frozen = split(BASE, dataclasses.replace(LORA, targets=("down",)), base, 1)
    many = by_path(split(BASE, LORA, base, 1)[0])
    for path, value in by_path(few).items():
        np.testing.assert_array_equal(value, many[path])
    assert list(by_path(few)) == ["blocks.down_lora_a", "blocks.down_lora_b"]
    jax.tree.map(np.testing.assert_array_equal, frozen, base)


def test_factors_have_the_axes_of_their_matrix():
    table = parameters(BASE, extras_of(LORA))
    assert table["blocks.q_lora_a"].axes == ("layers", "embed", "rank")
    assert table["blocks.q_lora_b"].axes == ("layers", "rank", "heads", "head_dim")
    assert table["blocks.o_lora_a"].axes == ("layers", "heads", "head_dim", "rank")
    assert table["blocks.o_lora_b"].axes == ("layers", "rank", "embed")
    assert table["blocks.down_lora_a"].shape == (2, 24, 4)
    assert table["blocks.down_lora_b"].shape == (2, 4, 16)


@pytest.mark.parametrize(("scale", "factor"), [("linear", 2.0), ("sqrt", 4.0)])
@pytest.mark.parametrize("target", ["q", "k", "o", "gate", "down"])
def test_the_formula_is_that_of_peft(target, scale, factor):
    """result = x W^T + scaling * ((x A^T) B^T), with W [out, in], A [r, in], B [out, r], by numpy in float64."""
    learn = dataclasses.replace(LORA, scale=scale)
    base, trained, _ = trained_model(BASE, learn)
    w = {path.removeprefix("blocks."): x[0] for path, x in by_path(join(trained, base)).items() if "blocks" in path}
    inputs = {"o": 32, "down": 24}.get(target, 16)
    x = np.random.default_rng(0).normal(size=(5, inputs)).astype(np.float32)
    weight = np.asarray(w[target], np.float64).reshape(inputs, -1).T
    a = np.asarray(w[f"{target}_lora_a"], np.float64).reshape(inputs, 4).T
    b = np.asarray(w[f"{target}_lora_b"], np.float64).reshape(4, -1).T
    wanted = x @ weight.T + factor * ((x @ a.T) @ b.T)
    np.testing.assert_allclose(decoder._linear(jnp.asarray(x), learn.in_use(w), target), wanted, atol=1e-5)
    merged = by_path(merge(base, trained, learn))[f"blocks.{target}"][0]
    np.testing.assert_allclose(np.reshape(merged, (inputs, -1)).T, weight + factor * b @ a, atol=1e-6)


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("shape", ["llama", "tied", "remat", "neox"])
def test_merged_equals_adapters_on(shape, by_head, monkeypatch):
    monkeypatch.setattr(decoder, "_by_head", lambda: by_head)
    base, trained, frozen = trained_model(SHAPES[shape], LORA)
    adapted = logits_of(SHAPES[shape], join(trained, frozen), LORA)
    plain = logits_of(SHAPES[shape], base)
    merged = merge(base, trained, LORA)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    assert np.abs(adapted - plain).max() > 0.05
    np.testing.assert_allclose(logits_of(SHAPES[shape], merged), adapted, atol=2e-5, rtol=0)


def test_merging_rounds_once():
    base, trained, _ = trained_model(BASE, LORA)
    whole, rounded = merge(base, trained, LORA), merge(base, trained, LORA, "bfloat16")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(jnp.bfloat16), b), whole, rounded)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base)
    assert {x.dtype for x in jax.tree.leaves(merge(low, trained, LORA))} == {jnp.dtype("bfloat16")}


def test_gradients_are_those_of_the_merged_matrices():
    """By the chain rule: dL/dA = s dL/dW B^T and dL/dB = s A^T dL/dW, at the merged matrices."""
    base, trained, frozen = trained_model(BASE, LORA)
    tokens = jax.random.randint(jax.random.key(0), (2, 9), 0, BASE.vocab_size)

    def loss(params, learn):
        model = bind(BASE, params, extras_of(learn))
        return jnp.mean(jax.nn.logsumexp(model.unembed(model(tokens)), axis=-1) ** 2)

    found = by_path(jax.jit(jax.grad(lambda t: loss(join(t, frozen), LORA)))(trained))
    at_merged = by_path(jax.jit(jax.grad(lambda p: loss(p, Full())))(merge(base, trained, LORA)))
    factors = by_path(trained)
    for target in ("q", "v", "o", "gate", "up", "down"):
        a, b = (np.asarray(factors[f"blocks.{target}_lora_{name}"], np.float64) for name in "ab")
        g = np.asarray(at_merged[f"blocks.{target}"], np.float64).reshape(2, a[0].size // 4, -1)
        wanted = 2.0 * g @ b.reshape(2, 4, -1).swapaxes(1, 2)
        np.testing.assert_allclose(found[f"blocks.{target}_lora_a"].reshape(wanted.shape), wanted, atol=1e-5)
        wanted = 2.0 * a.reshape(2, -1, 4).swapaxes(1, 2) @ g
        np.testing.assert_allclose(found[f"blocks.{target}_lora_b"].reshape(wanted.shape), wanted, atol=1e-5)


def test_frozen_parameters_are_kept_as_they_are_computed_with():
    config = SHAPES["bfloat16"]
    base = init_params(config, 0)
    _, frozen = split(config, LORA, base, 0)
    dtypes = {path: x.dtype for path, x in by_path(frozen).items()}
    assert dtypes["blocks.q"] == dtypes["embedding"] == jnp.bfloat16
    assert dtypes["blocks.attention_norm"] == dtypes["final_norm"] == jnp.float32
    np.testing.assert_array_equal(logits_of(config, frozen), logits_of(config, base))


def test_only_what_matches_is_trained():
    base = init_params(BASE, 0)
    learn = Only(patterns=("blocks.*_norm", "unembedding"))
    trained, frozen = split(BASE, learn, base, 0)
    assert set(by_path(trained)) == {"blocks.attention_norm", "blocks.mlp_norm", "unembedding"}
    assert set(by_path(trained)) | set(by_path(frozen)) == set(by_path(base))
    moved = jax.tree.map(lambda x: x + 1, trained)
    merged = by_path(merge(base, moved, learn))
    np.testing.assert_array_equal(merged["unembedding"], by_path(base)["unembedding"] + 1)
    np.testing.assert_array_equal(merged["blocks.q"], by_path(base)["blocks.q"])
    assert split(BASE, Full(), base, 0) == (base, None)


def test_gate_is_passed_over_where_there_is_none():
    paths = trained_paths(SHAPES["neox"], LORA)
    assert "blocks.up_lora_a" in paths
    assert not any("gate" in path for path in paths)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: build(Lora, {"rank": 0}, "learn"), "a rank of 0"),
        (lambda: build(Lora, {"targets": ("q_proj",)}, "learn"), "no matrix is called 'q_proj'"),
        (lambda: build(Lora, {"alpha": 0.0}, "learn"), "an alpha of 0"),
        (lambda: Only(), "nothing is learnt"),
        (lambda: trained_paths(BASE, Only(patterns=("block.q",))), "did you mean 'blocks.q'"),
        (lambda: trained_paths(SHAPES["neox"], dataclasses.replace(LORA, targets=("gate",))), "has none of gate"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(UserError, match=says):
        make()
