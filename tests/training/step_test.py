"""The step: optimizers, schedules, accumulation, guard, moving average; each against an independent computation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Batch
from alignpre_jax.model import get_preset, parse_mesh
from alignpre_jax.objectives import Mle, Models, total
from alignpre_jax.training import Fixed, GuardConfig, OptimizerConfig, ScheduleConfig, StepConfig, make_train_step
from alignpre_jax.training.metrics import metrics_line
from alignpre_jax.training.optimizer import _inputs_and_outputs, decays, learning_rate, make_optimizer, state_shardings

ROWS, LENGTH, TRAP = 8, 16, 49
MODEL = dataclasses.replace(
    get_preset("small_world"),
    vocab_size=50, layers=2, width=16, heads=2, kv_heads=2, head_dim=8, mlp_width=24, max_length=LENGTH,
)  # fmt: skip
PLAIN = OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0)
MLE = Mle()
CONSTANT = ScheduleConfig(peak=0.1, warmup_share=0.0, shape="constant")


def config(optimizer=PLAIN, schedule=CONSTANT, objective=MLE):
    return StepConfig(MODEL, objective, optimizer, schedule, steps=10, sources=2)


def batch(seed=0, uneven=False, trap=False):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TRAP, (ROWS, LENGTH), np.int32)
    segments = np.sort(rng.integers(1, 4, (ROWS, LENGTH), np.int32), axis=1)
    if uneven:  # padding at the end of the rows: none in the first, nearly all of the last
        segments[np.arange(LENGTH)[None] >= LENGTH - 2 * np.arange(ROWS)[:, None]] = 0
    if trap:
        tokens[0, 0] = TRAP
    return Batch({"tokens": tokens, "segments": segments}, rng.integers(0, 2, ROWS).astype(np.int32))


def run(step, batches, state=None):
    mesh = parse_mesh("fsdp:1", jax.devices()[:1])
    with jax.set_mesh(mesh):
        made = make_train_step(step, mesh)
        state = made.init(made.fresh_params(3)) if state is None else state
        found = []
        for each in batches:
            state, values = made.run(state, Fixed(), each)
            found.append(jax.device_get(values))
    return state, found


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_accumulation_is_exact_with_uneven_targets(count):
    whole, wanted = run(config(), [batch(1, uneven=True)])
    parts, found = run(config(dataclasses.replace(PLAIN, accumulate=count)), [batch(1, uneven=True)])
    close(parts.trained, whole.trained, atol=2e-7)
    close(found[0], wanted[0], rtol=1e-5)
    counts = np.sort((batch(1, uneven=True).segments > 0)[:, 1:].sum(1))
    assert counts[0] < 3 < 14 < counts[-1]  # a mean of the microbatches' means would be far off


def with_columns(rows, **columns):
    return dataclasses.replace(rows, columns={**rows.columns, **columns})


# The loss is a float32 sum in another order: 1e-5 of it. With a rate of 0.1 parameters differ by 0.1 x the gradients'.
SPLIT = {"loss_rtol": 1e-5, "params_atol": 2e-7}


def after_one_step(count, rows):
    """(the state after a step of plain SGD in `count` microbatches, its metrics)."""
    state, found = run(config(dataclasses.replace(PLAIN, accumulate=count)), [rows])
    return state, found[0]


@pytest.mark.parametrize(
    ("empty", "length", "targets"),
    [(1, 16, 105), (7, 16, 15), (7, 4, 3)],  # the first rows have a token and no target, the others `length` tokens
)
@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_microbatch_without_targets_weighs_nothing(empty, length, targets, count):
    segments = np.zeros((ROWS, LENGTH), np.int32)
    segments[:, 0] = 1
    segments[empty:, :length] = 1
    rows = with_columns(batch(), segments=segments)
    whole, wanted = after_one_step(1, rows)
    parts, found = after_one_step(count, rows)
    assert wanted["source_tokens"].sum() == targets
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=SPLIT["loss_rtol"])
    close(parts.trained, whole.trained, atol=SPLIT["params_atol"])


@settings(deadline=None, max_examples=25)  # the first call compiles
@given(st.data())
def test_loss_and_gradient_do_not_depend_on_the_split(data):
    """Masks are full, partial or empty by row, in some or all of the microbatches."""
    shares = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]), min_size=ROWS, max_size=ROWS))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = with_columns(batch(2), mask=rng.random((ROWS, LENGTH)) < np.array(shares)[:, None])
    whole, wanted = after_one_step(1, rows)
    parts, found = after_one_step(data.draw(st.sampled_from([2, 4, 8])), rows)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=SPLIT["loss_rtol"])
    np.testing.assert_allclose(found["gradient_norm"], wanted["gradient_norm"], rtol=1e-4, atol=1e-7)
    close(parts.trained, whole.trained, atol=SPLIT["params_atol"])
    np.testing.assert_array_equal(found["source_tokens"], wanted["source_tokens"])


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_without_targets_is_a_loss_of_0_and_moves_nothing(count):
    rows = with_columns(batch(), mask=np.zeros((ROWS, LENGTH), bool))
    start = make_train_step(config(), parse_mesh("fsdp:1", jax.devices()[:1])).fresh_params(3)
    state, found = after_one_step(count, rows)
    assert found["loss"] == found["gradient_norm"] == 0.0
    close(state.trained, start, atol=0)
    line = metrics_line(1, found, {"web": 8, "added": 0})
    assert line["learnt_tokens"] == 0
    assert line["stratum_loss"] == {}


def test_accumulation_must_divide():
    with pytest.raises(UserError, match="8 rows does not divide into 3 microbatches"):
        run(config(dataclasses.replace(PLAIN, accumulate=3)), [batch()])


def test_sgd_and_weight_decay_in_closed_form():
    optimizer = dataclasses.replace(PLAIN, weight_decay=0.5)
    start = make_train_step(config(), parse_mesh("fsdp:1", jax.devices()[:1])).fresh_params(3)
    plain, _ = run(config(), [batch()])
    decayed, _ = run(config(optimizer), [batch()])
    wanted = jax.tree.map(lambda p, is_matrix, after: after - 0.1 * 0.5 * p * is_matrix, start, decays(start), plain[0])
    close(decayed.trained, wanted, atol=1e-7)
    assert not jnp.array_equal(decayed.trained["blocks"]["q"][...], plain.trained["blocks"]["q"][...])
    assert jnp.array_equal(decayed.trained["final_norm"][...], plain.trained["final_norm"][...])


def test_adamw_is_optax_adamw_with_the_schedule_inside():
    schedule = ScheduleConfig(peak=1e-2, warmup_share=0.3)
    ours, _ = run(config(OptimizerConfig(), schedule), [batch(n) for n in range(4)])
    adamw = optax.adamw(learning_rate(schedule, 10), 0.9, 0.95, 1e-8, weight_decay=0.1, mask=decays)
    peer = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    params = make_train_step(config(), parse_mesh("fsdp:1", jax.devices()[:1])).fresh_params(3)
    state = peer.init(params)
    for n in range(4):
        gradients = _gradients(params, batch(n))
        updates, state = peer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    close(ours.trained, params, atol=1e-6)


def newton_schulz(matrix):
    """Jordan 2024: five steps of the quintic iteration, for the wide orientation."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_orthogonalises_each_layers_matrix_and_leaves_the_rest_to_adam():
    optimizer = OptimizerConfig(name="muon", weight_decay=0.0, clip_norm=0.0)
    params = make_train_step(config(), parse_mesh("fsdp:1", jax.devices()[:1])).fresh_params(3)
    chain, gradients = make_optimizer(optimizer), _gradients(params, batch())
    updates, _ = chain.update(gradients, chain.init(params), params)
    axes = _inputs_and_outputs(params["blocks"])
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        stack, (inputs, outputs) = updates["blocks"][name][...], axes[name].get_value()
        assert (*inputs, *outputs) == tuple(range(1, stack.ndim)), name  # inputs come first in every kernel
        rows = int(np.prod([stack.shape[i] for i in inputs]))
        for layer in range(2):  # the first step's momentum has the gradient's direction
            matrix = np.asarray(gradients["blocks"][name][...][layer], np.float64).reshape(rows, -1)
            wanted = -0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
            np.testing.assert_allclose(np.reshape(stack[layer], wanted.shape), wanted, atol=1e-4)
    adam = optax.scale_by_adam(0.9, 0.95)
    wanted, _ = adam.update(gradients, adam.init(params))
    close(updates["embedding"], jax.tree.map(jnp.negative, wanted["embedding"]), atol=1e-6)


def test_adafactor_treats_each_layer_as_optax_treats_a_matrix():
    optimizer = OptimizerConfig(name="adafactor", weight_decay=0.0, clip_norm=0.0)
    rng = np.random.default_rng(0)
    stack, slope = (rng.normal(size=(3, 130, 140)).astype(np.float32) for _ in range(2))
    params, gradients = {"blocks": {"up": stack}}, {"blocks": {"up": slope * [[[1]], [[100]], [[0.01]]]}}
    chain, peer = make_optimizer(optimizer), optax.adafactor(1.0)
    state = chain.init(params)
    ours = []
    for _ in range(2):
        updates, state = chain.update(gradients, state, params)
        ours.append(updates["blocks"]["up"])
    for layer in range(3):
        state = peer.init(stack[layer])
        for n in range(2):
            wanted, state = peer.update(gradients["blocks"]["up"][layer], state, stack[layer])
            np.testing.assert_allclose(ours[n][layer], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon", "sgd"])
def test_every_optimizer_learns(name):
    optimizer = OptimizerConfig(name=name)
    schedule = dataclasses.replace(CONSTANT, peak={"sgd": 0.5, "adafactor": 0.1}.get(name, 0.01))
    _, found = run(config(optimizer, schedule), [batch()] * 8)
    assert found[-1]["loss"] < found[0]["loss"] - 0.05


def test_moments_are_split_like_their_parameters():
    shapes = {"blocks": {"up": jax.ShapeDtypeStruct((2, 256, 128), np.float32)}}
    places = {"blocks": {"up": "split"}}
    for name in ("adamw", "muon", "sgd", "adafactor"):
        state = jax.eval_shape(make_optimizer(OptimizerConfig(name=name)).init, shapes)
        shardings = state_shardings(state, shapes, places, "whole")
        for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
            assert place == ("split" if leaf.shape == (2, 256, 128) else "whole")


@settings(deadline=None)  # the first call compiles
@given(st.integers(10, 500), st.floats(0.0, 0.3), st.floats(0.05, 0.7), st.sampled_from(["linear", "sqrt"]))
def test_wsd_in_closed_form(steps, warmup_share, decay_share, decay):
    made = ScheduleConfig(
        peak=2.0, final=0.5, warmup_share=warmup_share, shape="wsd", decay_share=decay_share, decay=decay
    )
    rate = learning_rate(made, steps)
    warmup, falling = round(warmup_share * steps), max(round(decay_share * steps), 1)
    for step in {0, warmup, steps // 2, steps - falling, steps - 1}:
        gone = max(step - (steps - falling), 0) / falling
        share = gone if decay == "linear" else gone**0.5
        wanted = 2.0 * (step + 1) / warmup if step < warmup else 2.0 - 1.5 * share
        assert float(rate(step)) == pytest.approx(wanted, rel=1e-5)


def test_moving_average_in_closed_form():
    optimizer = dataclasses.replace(PLAIN, ema_decay=0.75)
    step = make_train_step(config(), parse_mesh("fsdp:1", jax.devices()[:1]))
    wanted = step.fresh_params(3)
    for n in range(1, 4):
        state, _ = run(config(optimizer), [batch(i) for i in range(n)])
        wanted = jax.tree.map(lambda mean, p: 0.75 * mean + 0.25 * p, wanted, state.trained)
    close(state.ema, wanted, atol=1e-6)


def _gradients(params, rows):
    from alignpre_jax.model import bind

    def loss(params):
        return total(Mle().terms(Models(bind(MODEL, params)), rows)[0], Mle().weights(rows))

    return jax.grad(loss)(params)


@dataclasses.dataclass(frozen=True)
class Trapped(Mle):
    """An objective that goes wrong on a batch that contains the token TRAP: its loss is `times` too large."""

    times: float = float("inf")

    def terms(self, models, batch):
        terms, aux = super().terms(models, batch)
        coefficient, value = terms["nll"]
        return {"nll": (coefficient, jnp.where(jnp.any(batch.tokens == TRAP), self.times, 1.0) * value)}, aux


def test_the_guard_leaves_everything_but_the_step_number():
    optimizer = OptimizerConfig(ema_decay=0.9)
    before, _ = run(config(optimizer), [batch(0), batch(1)])
    state, found = run(
        config(optimizer, objective=Trapped()), [batch(0), batch(1), batch(2, trap=True), batch(3, trap=True)]
    )
    assert [int(each["bad_streak"]) for each in found] == [0, 0, 1, 2]
    assert int(state.step) == 4
    close([state.trained, state.optimizer, state.ema], [before.trained, before.optimizer, before.ema], atol=0)
    _, found = run(config(optimizer, objective=Trapped()), [batch(4)], state)
    assert int(found[0]["bad_streak"]) == 0


def test_a_spike_is_seen_against_the_losses_before_it():
    guard = GuardConfig(spike_mads=8.0, window=6)
    optimizer = dataclasses.replace(PLAIN, guard=guard)
    _, early = run(config(optimizer, objective=Trapped(times=3.0)), [batch(0), batch(1), batch(2, trap=True)])
    assert [int(each["bad_streak"]) for each in early] == [0, 0, 0]  # three losses are half a window
    rows = [batch(n, trap=n == 5) for n in range(7)]
    _, found = run(config(optimizer, objective=Trapped(times=3.0)), rows)
    assert [int(each["bad_streak"]) for each in found] == [0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OptimizerConfig(accumulate=0), "less than 1"),
        (lambda: OptimizerConfig(ema_decay=1.0), "ema_decay"),
        (lambda: GuardConfig(action="stop", spike_mads=3.0), "guard is off"),
        (lambda: ScheduleConfig(shape="wsd", decay_share=1.0), "add up to at most 1"),
    ],
)
def test_settings_that_contradict_each_other(make, says):
    with pytest.raises(UserError, match=says):
        make()
