"""What is learnt: only that has gradients, moments and updates; the base stays, and fresh adapters change nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Batch
from alignpre_jax.model import Full, Lora, Only, get_preset, merge
from alignpre_jax.model.mesh import parse_mesh
from alignpre_jax.model.trees import by_path, nest
from alignpre_jax.objectives import Mle, Models
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step
from alignpre_jax.training.checks import check_objective
from alignpre_jax.training.identity import check_adapters_off

ROWS, LENGTH = 8, 16
MODEL = dataclasses.replace(
    get_preset("small_world"),
    vocab_size=50, layers=2, width=16, heads=2, kv_heads=2, head_dim=8, mlp_width=24, max_length=LENGTH,
)  # fmt: skip
LORA = Lora(rank=2, alpha=4.0)
RATE = ScheduleConfig(peak=0.01, warmup_share=0.0, shape="constant")


def config(learn, optimizer=OptimizerConfig()):  # noqa: B008, frozen
    return StepConfig(MODEL, Mle(), optimizer, RATE, steps=10, sources=2, learn=learn)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    columns = {
        "tokens": rng.integers(0, 49, (ROWS, LENGTH), np.int32),
        "segments": np.sort(rng.integers(1, 4, (ROWS, LENGTH), np.int32), axis=1),
    }
    return Batch(columns, rng.integers(0, 2, ROWS).astype(np.int32))


def run(step, count=3):
    """(the whole model before, fixed, state after `count` steps, metrics of each, whole model after)."""
    mesh = parse_mesh("fsdp:1", jax.devices()[:1])
    with jax.set_mesh(mesh):
        made = make_train_step(step, mesh)
        base = made.fresh_params(3)
        state, fixed = made.start(base, seed=5)
        found = []
        for n in range(count):
            state, values = made.run(state, fixed, batch(n))
            found.append(jax.device_get(values))
        return base, fixed, state, found, made.whole(state, fixed)


@pytest.mark.parametrize("init", ["b0", "a0"])
def test_only_the_factors_are_learnt(init):
    base, fixed, state, found, whole = run(config(dataclasses.replace(LORA, init=init)))
    sizes = {path: x.size for path, x in by_path(state.trained).items()}
    assert len(sizes) == 14
    moments = [x.size for x in jax.tree.leaves(state.optimizer) if x.ndim]
    assert sorted(moments) == sorted(2 * list(sizes.values()))  # Adam's two, of the factors and of nothing else
    jax.tree.map(np.testing.assert_array_equal, fixed.frozen, base)
    assert found[0]["gradient_norm"] > 0
    merged = merge(base, state.trained, LORA)
    jax.tree.map(np.testing.assert_array_equal, whole, merged)
    changed = {path for path, x in by_path(whole).items() if not np.array_equal(x, by_path(base)[path])}
    assert changed == {f"blocks.{name}" for name in LORA.targets}


def test_a_step_of_sgd_on_factors_in_closed_form():
    """With B = 0 the gradient of A is zero; that of B is A^T dL/dW x s, and dL/dW is what a full step moves W by."""
    sgd = OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    base, _, state, _, _ = run(config(LORA, sgd), count=1)
    before, _, full, _, _ = run(config(Full(), sgd), count=1)
    jax.tree.map(np.testing.assert_array_equal, base, before)
    fresh = by_path(make_train_step(config(LORA, sgd), parse_mesh("fsdp:1", jax.devices()[:1])).split(base, 5)[0])
    for name in ("q", "o", "down"):
        gradient = (by_path(base)[f"blocks.{name}"] - by_path(full.trained)[f"blocks.{name}"]) / 0.01
        a = np.asarray(fresh[f"blocks.{name}_lora_a"])
        np.testing.assert_array_equal(by_path(state.trained)[f"blocks.{name}_lora_a"], a)
        flat = a.reshape(2, -1, 2)
        wanted = -0.01 * 2.0 * flat.swapaxes(1, 2) @ np.reshape(gradient, (2, flat.shape[1], -1))
        found = np.reshape(by_path(state.trained)[f"blocks.{name}_lora_b"], wanted.shape)
        np.testing.assert_allclose(found, wanted, atol=2e-7)


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_the_other_optimizers_move_factors(name):
    _, _, state, found, _ = run(config(LORA, OptimizerConfig(name=name)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.trained))
    assert all(values["update_norm"] > 0 for values in found)


def test_only_some_parameters_in_microbatches():
    optimizer = OptimizerConfig(accumulate=4, ema_decay=0.5)
    base, fixed, state, _, whole = run(config(Only(patterns=("blocks.*_norm", "embedding")), optimizer))
    assert set(by_path(state.trained)) == {"blocks.attention_norm", "blocks.mlp_norm", "embedding"}
    assert set(by_path(state.ema)) == set(by_path(state.trained))
    assert set(by_path(fixed.frozen)) == set(by_path(base)) - set(by_path(state.trained))
    assert not np.array_equal(by_path(whole)["embedding"], by_path(base)["embedding"])
    np.testing.assert_array_equal(by_path(whole)["blocks.q"], by_path(base)["blocks.q"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fresh_adapters_are_checked_against_adapters_that_are_off(dtype):
    step = config(LORA, OptimizerConfig(accumulate=2))
    step = dataclasses.replace(step, model=dataclasses.replace(MODEL, dtype=dtype))
    mesh = parse_mesh("fsdp:1", jax.devices()[:1])
    with jax.set_mesh(mesh):
        made = make_train_step(step, mesh)
        state, fixed = made.start(made.fresh_params(3))
        check_adapters_off(step, mesh, state, fixed, batch())
        factors = by_path(state.trained)
        moved = nest(factors | {"blocks.v_lora_b": factors["blocks.v_lora_b"] + jnp.float32(1e-3)})
        with pytest.raises(UserError, match=r"fresh adapters change the loss of \d+ of 64 tokens, by up to"):
            check_adapters_off(step, mesh, state._replace(trained=moved), fixed, batch())


class Close(Mle):
    """An objective with a reference: the loss, less the reference's."""

    needs_reference = True

    def terms(self, models, batch):
        (terms, aux), (other, _) = super().terms(models, batch), super().terms(Models(models.reference), batch)
        (coefficient, value), (_, before) = terms["nll"], other["nll"]
        return {"nll": (coefficient, value - before)}, aux


@pytest.mark.parametrize("learn", [Full(), LORA], ids=["full", "lora"])
def test_a_reference_is_beside_the_policy_and_stays(learn):
    step = dataclasses.replace(config(learn), objective=Close())
    mesh = parse_mesh("fsdp:1", jax.devices()[:1])
    with jax.set_mesh(mesh):
        made = make_train_step(step, mesh)
        base = made.fresh_params(3)
        state, fixed = made.start(jax.tree.map(jnp.copy, base))
        fixed = fixed._replace(reference=base)
        losses = []
        for _ in range(3):
            state, values = made.run(state, fixed, batch())
            losses.append(float(values["loss"]))
        assert jax.tree.structure(made.abstract()[1]) == jax.tree.structure(fixed)
    assert losses[0] == 0.0  # policy and reference go through one program and are equal
    assert losses[2] < losses[1] < 0.0
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(base))


def test_rows_and_models_that_an_objective_needs_are_asked_for(make_run):
    run = make_run()
    check_objective(run)
    with pytest.raises(UserError, match="mle compares with no model"):
        check_objective(dataclasses.replace(run, reference="somewhere"))
    needs = dataclasses.replace(run, step=dataclasses.replace(run.step, objective=Close()))
    with pytest.raises(UserError, match="none is given"):
        check_objective(needs)

    class Scored(Mle):
        reads = ("tokens", "segments", "scores")

    lacking = dataclasses.replace(run, step=dataclasses.replace(run.step, objective=Scored()))
    with pytest.raises(UserError, match=r"reads the columns tokens, segments, scores, and the rows of .* lack scores"):
        check_objective(lacking)
