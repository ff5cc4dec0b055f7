"""A run that trains adapters: trained, saved, gone on with, merged, trained further, exported; the base stays apart."""

import dataclasses
import shutil

import numpy as np
import pytest

from alignpre_jax.checkpoints import load
from alignpre_jax.foundation import UserError, read_json, read_jsonl
from alignpre_jax.model import Lora, Only, init_params
from alignpre_jax.model.trees import by_path
from alignpre_jax.training import train

LORA = Lora(rank=4, alpha=8.0)


def digest_of(run):
    return read_json(run.run_dir / "done.json")["parameters"]


def learning(run, learn, **changes):
    return dataclasses.replace(run, step=dataclasses.replace(run.step, learn=learn), **changes)


class Stop(Exception):
    pass


def stop_at(step):
    def report(event):
        if event.done == step:
            raise Stop

    return report


@pytest.fixture
def parent(make_run):
    run = make_run("parent", steps=4)
    train(run)
    return run


@pytest.mark.parametrize("learn", [LORA, Only(patterns=("blocks.*_norm", "blocks.up"))], ids=["lora", "only"])
def test_a_resume_equals_an_undisturbed_run_bit_for_bit(make_run, parent, learn):
    whole = learning(make_run("whole"), learn, start_from=str(parent.run_dir))
    train(whole)
    run = learning(make_run("stopped"), learn, start_from=str(parent.run_dir))
    with pytest.raises(Stop):
        train(run, stop_at(8))
    train(run)
    assert [line["step"] for line in read_jsonl(run.run_dir / "events.jsonl") if line["event"] == "start"] == [0, 5]
    assert digest_of(run) == digest_of(whole)
    losses = [[line["loss"] for line in read_jsonl(each.run_dir / "metrics.jsonl")] for each in (run, whole)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 12


def test_a_checkpoint_holds_the_factors_and_loading_merges_them(make_run, parent):
    run = learning(make_run("lora"), LORA, start_from=str(parent.run_dir))
    train(run)
    base, found = load(parent.run_dir), load(run.run_dir)
    size = sum(path.stat().st_size for path in (run.run_dir / "checkpoints" / "12").rglob("*") if path.is_file())
    before = sum(path.stat().st_size for path in (parent.run_dir / "checkpoints" / "4").rglob("*") if path.is_file())
    assert size < 0.6 * before
    assert {name for name in found.facts["digests"] if name.startswith("['params']") and "lora" not in name} == set()
    assert (found.facts["base"]["folder"], found.facts["base"]["step"]) == ("../parent", 4)
    changed = {path for path, x in by_path(found.params).items() if not np.array_equal(x, by_path(base.params)[path])}
    assert changed == {f"blocks.{name}" for name in LORA.targets}
    assert len(found.facts["merged"]) == 16
    assert load(run.run_dir).facts["merged"] == found.facts["merged"]
    # Training goes on from the merged model, and a model whose base has changed is refused.
    after = make_run("after", steps=2)
    train(dataclasses.replace(after, start_from=str(run.run_dir)))
    assert load(after.run_dir).facts["made"]["learn"] == {"name": "full"}
    shutil.rmtree(parent.run_dir)
    other = make_run("parent", steps=4)
    train(dataclasses.replace(other, seed=8))
    with pytest.raises(UserError, match="another model"):
        load(run.run_dir)


def test_adapters_of_a_fresh_model(make_run):
    """Their base is a function of the seed, and is in no folder."""
    run = learning(make_run("fresh", steps=3), LORA)
    train(run)
    found = load(run.run_dir)
    assert found.facts["base"] == {"seed": 7}
    base = by_path(init_params(run.step.model, 7))
    assert by_path(found.params).keys() == base.keys()
    np.testing.assert_allclose(by_path(found.params)["embedding"], base["embedding"], atol=1e-7)  # compiled or not
    assert 0 < np.abs(by_path(found.params)["blocks.q"] - base["blocks.q"]).max() < 0.1
