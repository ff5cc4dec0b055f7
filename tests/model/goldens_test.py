"""The four families against Hugging Face's models (files by tools/make_model_goldens.py)."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.model import DecoderConfig, bind
from alignpre_jax.model.hf.names import from_hf, to_hf
from alignpre_jax.objectives import Mle, Models, total

GOLDENS = pathlib.Path(__file__).parent / "goldens"
TOOL = pathlib.Path(__file__).parents[2] / "tools" / "make_model_goldens.py"
TINY = DecoderConfig(
    vocab_size=36,
    layers=2,
    width=16,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp_width=20,
    norm_epsilon=1e-6,
    max_length=32,
    vocab_multiple=16,
    dtype="float32",
)
FAMILIES = {
    "gpt_neox": dataclasses.replace(
        TINY,
        kv_heads=4,
        norm="layernorm",
        norm_epsilon=1e-5,
        parallel_residual=True,
        rotary_fraction=0.5,
        mlp="gelu",
        biases="all",
    ),
    "llama": TINY,
    "qwen3": dataclasses.replace(TINY, head_dim=8, qk_norm="head", tied_embeddings=True),
    "olmo2": dataclasses.replace(TINY, norm_position="post", qk_norm="full"),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    tokens: jax.Array
    segments: jax.Array


def load(family):
    arrays = dict(np.load(GOLDENS / f"{family}.npz"))
    return arrays, weights_of(arrays)


def weights_of(arrays):
    return {name.removeprefix("weight/"): a for name, a in arrays.items() if name.startswith("weight/")}


def compare(family, golden):
    """Our logits, loss and gradients with those of Hugging Face's model of the same weights."""
    config, weights = FAMILIES[family], weights_of(golden)
    params = from_hf(config, weights, family)
    assert config.num_params() == sum(leaf.size for leaf in jax.tree.leaves(params))
    rows = Rows(jnp.asarray(golden["tokens"]), jnp.asarray(golden["segments"]))

    @jax.jit
    def logits(params, tokens, segments):
        decoder = bind(config, params)
        return decoder.unembed(decoder(tokens, segments))[..., : config.vocab_size]

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradients(params):
        return total(Mle().terms(Models(bind(config, params)), rows)[0], Mle().weights(rows))

    one_segment = jnp.ones_like(rows.segments)
    np.testing.assert_allclose(logits(params, rows.tokens, one_segment), golden["logits"], atol=1e-4, rtol=0)
    packed = logits(params, rows.tokens, rows.segments)
    np.testing.assert_allclose(packed, golden["packed_logits"], atol=1e-4, rtol=0)
    loss, gradients = loss_and_gradients(params)
    np.testing.assert_allclose(loss, golden["loss"], atol=1e-4, rtol=0)
    theirs = to_hf(config, gradients, family)
    assert theirs.keys() == weights.keys()
    norms = [np.linalg.norm(theirs[name]) for name in sorted(theirs)]
    np.testing.assert_allclose(norms, golden["gradient_norms"], atol=1e-4, rtol=1e-4)
    checked = [name for name in golden if name.startswith("gradient/")]
    assert checked
    for name in checked:
        np.testing.assert_allclose(theirs[name.removeprefix("gradient/")], golden[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_hugging_face(family):
    compare(family, load(family)[0])


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_today_gives_the_same(family):
    """The files are what the script writes now, and other weights and tokens agree as well."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("make_model_goldens", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    stored, fresh = load(family)[0], tool.golden(tool.models()[family])
    assert stored.keys() == fresh.keys()
    for name, values in stored.items():
        np.testing.assert_allclose(fresh[name], values, atol=1e-4, err_msg=name)
    compare(family, tool.golden(tool.models()[family], seed=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_export_inverts_import(family):
    _, weights = load(family)
    back = to_hf(FAMILIES[family], from_hf(FAMILIES[family], weights, family), family)
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(back[name], weight, err_msg=name)


def test_import_names_what_is_wrong():
    _, weights = load("llama")
    with pytest.raises(UserError, match=r"model\.layers\.2"):
        from_hf(dataclasses.replace(TINY, layers=3), weights, "llama")
    with pytest.raises(UserError, match=r"mlp\.gate_proj"):
        from_hf(dataclasses.replace(TINY, mlp_width=24), weights, "llama")
    with pytest.raises(UserError, match="did you mean 'llama'"):
        from_hf(TINY, weights, "lama")
