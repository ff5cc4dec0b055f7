"""A run that learns from pairs beside a reference: step 0, a resume bit for bit, adapters, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from alignpre_jax.checkpoints import load
from alignpre_jax.documents import Document, Pair
from alignpre_jax.foundation import UserError, exact, read_json, read_jsonl
from alignpre_jax.mixture import BasePlan, Plan, load_batches
from alignpre_jax.model import Full, Lora
from alignpre_jax.model.mesh import parse_mesh
from alignpre_jax.objectives import Dpo, Mle
from alignpre_jax.rows import build_rows, load_tokenizer
from alignpre_jax.training import make_train_step, train
from alignpre_jax.training.identity import check_margins

BATCH, STEPS = 8, 6
LORA = Lora(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def pairs(data, tmp_path_factory):
    root, _ = data
    things = ("tide", "shore", "boats", "people", "system")
    documents = [
        Document(f"p{n}", Pair(f"the {things[n % 5]} {n}", " came in over a long", " lay still"), "prefs", "prefs")
        for n in range(40)
    ]
    tokenizer = load_tokenizer(root / "tokenizer.json")
    return build_rows(documents, tokenizer, 64, tmp_path_factory.mktemp("rows"), packing="best_fit")


@pytest.fixture
def parent(make_run):
    run = make_run("parent", steps=4)
    long = dataclasses.replace(run.step.model, max_length=64)
    run = dataclasses.replace(run, step=dataclasses.replace(run.step, model=long))
    train(run)
    return run


@pytest.fixture
def make(make_run, parent, pairs):
    """A function that makes a run of DPO on pairs, from the parent and beside it."""

    def run(name, learn=Full(), **changes):  # noqa: B008, frozen
        rows = {stratum: len(store) for stratum, store in pairs.items()}
        plan = Plan(BasePlan({"prefs": exact(1)}, rows, slots=STEPS * BATCH, seed=1, max_epochs=100), (), rows)
        base = make_run(name)
        step = dataclasses.replace(
            parent.step, objective=Dpo(beta=5.0, length_normalised=True), steps=STEPS, sources=1, learn=learn
        )
        place = str(parent.run_dir)
        found = dataclasses.replace(base, step=step, plan=plan, stores=pairs, start_from=place, reference=place)
        return dataclasses.replace(found, **changes)

    return run


class Stop(Exception):
    pass


def stop_at(step):
    def report(event):
        if event.done == step:
            raise Stop

    return report


@pytest.mark.parametrize("learn", [Full(), LORA], ids=["full", "lora"])
def test_a_run_begins_at_ln_2_and_a_resume_is_exact(make, learn):
    whole, run = make("whole", learn), make("stopped", learn)
    loop = dataclasses.replace(run.loop, checkpoint_every=2)
    whole, run = dataclasses.replace(whole, loop=loop), dataclasses.replace(run, loop=loop)
    train(whole)
    with pytest.raises(Stop):
        train(run, stop_at(4))
    train(run)
    first, *_, last = lines = list(read_jsonl(whole.run_dir / "metrics.jsonl"))
    assert first["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert first["mean_margin"] == pytest.approx(0, abs=1e-6)
    assert last["loss"] < first["loss"]
    assert last["mean_margin"] > 0.001
    assert last["mean_accuracy"] > 0.9
    assert last["mean_chosen_log_prob"] < last["mean_chosen_log_prob_per_token"] < 0
    digests = [read_json(each.run_dir / "done.json")["parameters"] for each in (whole, run)]
    assert digests[0] == digests[1]
    again = read_jsonl(run.run_dir / "metrics.jsonl")
    assert [line["mean_margin"] for line in again] == [line["mean_margin"] for line in lines]


def test_a_resume_beside_another_reference_is_refused(make, make_run, parent):
    run = make("run")
    with pytest.raises(Stop):
        train(dataclasses.replace(run, loop=dataclasses.replace(run.loop, checkpoint_every=2)), stop_at(4))
    other = dataclasses.replace(make_run("other", steps=4), step=parent.step, seed=9)
    train(other)
    with pytest.raises(UserError, match="reference"):
        train(dataclasses.replace(run, reference=str(other.run_dir)))


@pytest.mark.parametrize("learn", [Full(), LORA], ids=["full", "lora"])
def test_a_policy_that_is_not_its_reference_is_told(make, parent, learn):
    run = make("run", learn)
    mesh = parse_mesh("fsdp:1", jax.devices()[:1])
    batch = next(load_batches(run.plan, run.stores, BATCH, 0, 1))
    with jax.set_mesh(mesh):
        made = make_train_step(run.step, mesh)
        params = load(parent.run_dir, mesh=mesh).params
        state, fixed = made.start(params, seed=5)
        check_margins(run.step, mesh, made.split, state, fixed._replace(reference=params), batch)
        moved = fixed._replace(reference=jax.tree.map(lambda x: x * 1.001, params))
        with pytest.raises(UserError, match=r"(\d+) of \1 margins are not 0 \(up to .*; the loss is 0\.68"):
            check_margins(run.step, mesh, made.split, state, moved, batch)


def test_rows_without_sides_are_refused(make_run, parent):
    run = dataclasses.replace(make_run("run"), start_from=str(parent.run_dir), reference=str(parent.run_dir))
    step = dataclasses.replace(parent.step, steps=run.step.steps, objective=Dpo())
    with pytest.raises(UserError, match="lack mask, side"):
        train(dataclasses.replace(run, step=step))
    assert isinstance(run.step.objective, Mle)
