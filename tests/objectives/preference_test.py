"""Preference objectives: against numpy in float64 and torch, at step 0, and however rows and batches are packed."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.foundation import UserError, build, to_mapping
from alignpre_jax.mixture import Batch
from alignpre_jax.model import DecoderConfig, bind, init_params
from alignpre_jax.model.mesh import parse_mesh
from alignpre_jax.objectives import Dpo, Mle, Models, Objective, Orpo, SimPo, total
from alignpre_jax.objectives.preference import log_odds
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step

CONFIG = DecoderConfig(
    vocab_size=50, layers=1, width=16, heads=2, kv_heads=2, head_dim=8, mlp_width=16, max_length=64, layout="unroll",
    dtype="float32",
)  # fmt: skip
OBJECTIVES = [
    Dpo(),
    Dpo(beta=5.0, length_normalised=True),
    Dpo(beta=0.5, label_smoothing=0.1, nll=0.3),
    Dpo(beta=0.5, label_smoothing=0.2, loss="robust"),
    Dpo(beta=0.2, loss="ipo"),
    Dpo(beta=0.3, loss="hinge"),
    Orpo(weight=0.5),
    SimPo(beta=2.5, gamma=1.4),
]
NAMES = [f"{each.name}-{getattr(each, 'loss', '')}-{n}" for n, each in enumerate(OBJECTIVES)]


def draw(count=6, seed=0):
    """Pairs: (prompt, chosen, rejected), as lists of ids."""
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(1, 6))) for _ in range(count)]
    return [tuple(rng.integers(0, 50, size).tolist() for size in each) for each in sizes]


def pack(rows, length):
    """Rows of pairs as the store has them: each side is a segment, with the prompt before the answer."""
    shape = (len(rows), length)
    columns = {"tokens": np.full(shape, 49, np.int32), "segments": np.zeros(shape, np.int32)}
    columns |= {"mask": np.zeros(shape, bool), "side": np.zeros(shape, np.int8)}
    for row, pairs in enumerate(rows):
        at, segment = 0, 0
        for prompt, *answers in pairs:
            for side, answer in zip((1, -1), answers, strict=True):
                segment, end = segment + 1, at + len(prompt) + len(answer)
                columns["tokens"][row, at:end] = prompt + answer
                columns["segments"][row, at:end] = segment
                columns["side"][row, at:end] = side
                columns["mask"][row, at + len(prompt) : end] = True
                at = end
    return Batch(columns, np.zeros(len(rows), np.int32))


def value(objective, policy, reference, batch):
    models = Models(bind(CONFIG, policy), bind(CONFIG, reference) if objective.needs_reference else None)
    terms, aux = objective.terms(models, batch)
    return total(terms, objective.weights(batch)), aux


def graded(objective, policy, reference, batch):
    return jax.jit(jax.value_and_grad(lambda p: value(objective, p, reference, batch), has_aux=True))(policy)


@jax.jit
def sums(params):
    """(log-probs of the chosen answers, of the rejected ones), each answer in a row of its own, in plain JAX."""
    ids, counted = (np.zeros((2 * len(PAIRS), 10), kind) for kind in (np.int32, np.float32))
    for row, (side, (prompt, *answers)) in enumerate(itertools.product((0, 1), PAIRS)):
        size = len(prompt) + len(answers[side])
        ids[row, :size] = prompt + answers[side]
        counted[row, len(prompt) : size] = 1
    decoder = bind(CONFIG, params)
    logs = jax.nn.log_softmax(decoder.unembed(decoder(jnp.asarray(ids))))
    found = jnp.take_along_axis(logs[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(found * counted[:, 1:], axis=1).reshape(2, -1)


def formula(objective, lib, ours, theirs, sizes):
    """The loss as the papers write it; `lib` is numpy or torch, in float64."""
    (w, l), (ref_w, ref_l), (T_w, T_l) = ours, theirs, sizes  # noqa: E741, the papers' letter

    def log_sigmoid(z):
        return -lib.log1p(lib.exp(-z))

    nll = -w.sum() / T_w.sum()
    if objective.name == "orpo":
        odds = [m - lib.log1p(-lib.exp(m)) for m in (w / T_w, l / T_l)]
        return nll - objective.weight * log_sigmoid(odds[0] - odds[1]).mean()
    if objective.name == "simpo":
        return -log_sigmoid(objective.beta * (w / T_w - l / T_l) - objective.gamma).mean()
    per_token = objective.length_normalised or objective.loss == "ipo"
    h = (w - ref_w) / T_w - (l - ref_l) / T_l if per_token else (w - ref_w) - (l - ref_l)
    z, e = objective.beta * h, objective.label_smoothing
    losses = {
        "sigmoid": -(1 - e) * log_sigmoid(z) - e * log_sigmoid(-z),
        "robust": (-(1 - e) * log_sigmoid(z) + e * log_sigmoid(-z)) / (1 - 2 * e),
        "hinge": (1 - z) * (z < 1),
        "ipo": (h - 1 / (2 * objective.beta)) ** 2,
    }
    return losses[objective.loss].mean() + objective.nll * nll


PAIRS = draw(5)
SIZES = np.array([[len(pair[side]) for pair in PAIRS] for side in (1, 2)], np.float64)
ROWS = {
    "one": ([[pair] for pair in PAIRS], 20),
    "several": ([PAIRS[:2], PAIRS[2:], []], 50),
    "padded": ([PAIRS[:2], PAIRS[2:], []], 61),
    "another order": ([[], PAIRS[:1:-1], PAIRS[1::-1]], 50),
}


@pytest.fixture(scope="module")
def models():
    """The parameters of a policy and its reference."""
    policy = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(3), x.shape), init_params(CONFIG, 0))
    return policy, init_params(CONFIG, 1)


@pytest.fixture(scope="module")
def apart(models):
    """The log-probs of every answer under both models, and their derivatives by the policy's parameters."""
    return *(np.asarray(sums(params), np.float64) for params in models), jax.jit(jax.jacrev(sums))(models[0])


@pytest.fixture(scope="module")
def result(models):
    """A function that gives ((loss, aux), gradients) of an objective on the pairs, packed in a way."""
    return functools.cache(lambda objective, way: graded(objective, *models, pack(*ROWS[way])))


def close(gradients, slopes, jacobian):
    """The chain rule: are the gradients the sums of slopes x derivatives of log-probs?"""
    wanted = jax.tree.map(lambda x: np.tensordot(np.asarray(slopes), np.asarray(x, np.float64), 2), jacobian)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, wanted)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_values_and_gradients_are_those_of_the_papers_formula(objective, result, apart):
    ours, theirs, jacobian = apart
    (loss, aux), gradients = result(objective, "several")
    np.testing.assert_allclose(loss, formula(objective, np, ours, theirs, SIZES), rtol=1e-5)
    assert float(jnp.sum(aux["targets_B"])) == SIZES.sum()
    np.testing.assert_allclose(jnp.sum(aux["mean_chosen_log_prob_B"]), ours[0].sum(), rtol=1e-5)
    per_token = jnp.sum(aux["mean_rejected_log_prob_per_token_B"])
    np.testing.assert_allclose(per_token, (ours[1] / SIZES[1]).sum(), rtol=1e-5)
    slopes = np.zeros_like(ours)
    for place in np.ndindex(*ours.shape):
        step = np.zeros_like(ours)
        step[place] = 1e-6
        up, down = (formula(objective, np, ours + sign * step, theirs, SIZES) for sign in (1, -1))
        slopes[place] = (up - down) / 2e-6
    close(gradients, slopes, jacobian)


@pytest.mark.torch
@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_values_and_gradients_are_those_of_torch(objective, result, apart):
    torch = pytest.importorskip("torch")
    ours, theirs, jacobian = apart
    leaf = torch.tensor(ours, requires_grad=True)
    loss = formula(objective, torch, leaf, torch.tensor(theirs), torch.tensor(SIZES))
    loss.backward()
    (found, _), gradients = result(objective, "several")
    np.testing.assert_allclose(found, loss.item(), rtol=1e-5)
    close(gradients, leaf.grad, jacobian)


@pytest.mark.parametrize(("objective", "way"), [(OBJECTIVES[2], way) for way in ROWS] + [(OBJECTIVES[6], "one")])
def test_packing_padding_and_the_order_of_rows_change_nothing(objective, way, result):
    (loss, aux), gradients = result(objective, way)
    (wanted, wanted_aux), wanted_gradients = result(objective, "several")
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    for name in objective.figures:
        np.testing.assert_allclose(jnp.sum(aux[f"{name}_B"]), jnp.sum(wanted_aux[f"{name}_B"]), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), gradients, wanted_gradients)


@pytest.mark.parametrize("objective", [*OBJECTIVES[:2], OBJECTIVES[4]], ids=["plain", "normalised", "ipo"])
def test_a_policy_that_is_its_reference(objective, models):
    batch = pack([draw(3), draw(2, seed=1)], 50)
    (loss, aux), gradients = graded(objective, models[0], models[0], batch)
    np.testing.assert_allclose(aux["mean_margin_B"], 0, atol=1e-5)  # to the bit: `identity.check_margins`
    np.testing.assert_allclose(loss, objective.start_loss, rtol=1e-5)
    if objective.loss in ("sigmoid", "robust"):
        np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    assert max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(gradients)) > 1e-4


def test_a_batch_without_a_pair_has_no_loss_and_no_gradient(models):
    for objective in OBJECTIVES[5:7]:
        (loss, _), gradients = graded(objective, *models, pack([[], []], 12))
        assert float(loss) == 0.0
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(gradients))


def test_a_side_without_the_other_is_no_pair(models):
    objective = Dpo(nll=1.0)
    batch, alone = pack([PAIRS[:2]], 30), pack([PAIRS[:1]], 30)
    lonely = np.flatnonzero(batch.segments[0] == 4)
    batch.columns["segments"][0, lonely] = 0
    batch.columns["side"][0, lonely] = 0
    for name, weight in objective.weights(alone).items():
        assert float(objective.weights(batch)[name]) == float(weight)
    found, wanted = (jax.jit(functools.partial(value, objective, *models))(each)[0] for each in (batch, alone))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_log_odds_stay_finite():
    means = np.array([0.0, -1e-9, -1e-7, -1e-6, -1e-3, -0.1, -math.log(2), -1.0, -20.0, -200.0], np.float32)
    values, slopes = jax.vmap(jax.value_and_grad(log_odds))(means)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    exact = means[3:].astype(np.float64)
    np.testing.assert_allclose(values[3:], exact - np.log(-np.expm1(exact)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(slopes[3:], -1 / np.expm1(exact), rtol=1e-5)


@pytest.mark.parametrize("objective", [Dpo(beta=0.5, nll=0.1), Orpo()], ids=["dpo", "orpo"])
def test_microbatches_change_nothing(objective, models):
    pairs = draw(7)
    batch = pack(
        [pairs[:2], [], pairs[2:3], pairs[3:4], [], [], pairs[4:6], pairs[6:]], 48
    )  # two microbatches are empty
    found = []
    for count in (1, 8):
        step = StepConfig(
            CONFIG, objective, OptimizerConfig(accumulate=count), ScheduleConfig(peak=1e-2, warmup_share=0.0), 4, 1
        )
        mesh = parse_mesh("fsdp:1", jax.devices()[:1])
        with jax.set_mesh(mesh):
            made = make_train_step(step, mesh)
            state, fixed = made.start(jax.tree.map(jnp.copy, models[0]))
            if objective.needs_reference:
                fixed = fixed._replace(reference=models[1])
            state, values = made.run(state, fixed, batch)
            found.append(jax.device_get(values))
    for name in found[0]:
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert 0 < found[0]["mean_accuracy"] < 1


def test_a_config_names_them_and_mistakes_are_told():
    @dataclasses.dataclass(frozen=True)
    class Holder:
        objective: Objective = dataclasses.field(default_factory=Mle)

    for objective in (*OBJECTIVES, Mle(z_loss=0.1)):
        assert build(Holder, to_mapping(Holder(objective))) == Holder(objective)
    assert build(Holder, {"objective": {"name": "dpo", "beta": 5.0}}).objective == Dpo(beta=5.0)
    with pytest.raises(UserError, match="not positive"):
        Dpo(beta=0.0)
    with pytest.raises(UserError, match="below one half"):
        Dpo(loss="robust", label_smoothing=0.5)
    with pytest.raises(UserError, match="'ipo' has no label smoothing"):
        Dpo(loss="ipo", label_smoothing=0.1)
    with pytest.raises(UserError, match="negative"):
        SimPo(gamma=-1.0)
