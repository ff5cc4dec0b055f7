"""A newest checkpoint that was copied only in part does not hide a whole older one."""

import dataclasses
import errno
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.checkpoints import Checkpoints, State, damage, describe, load, loading
from alignpre_jax.foundation import UserError, write_json
from alignpre_jax.model import init_params
from alignpre_jax.rows import train_bpe
from tests.sampling.conftest import CONFIG


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run's folder with the steps 0 and 10, of different parameters."""
    run = tmp_path_factory.mktemp("whole") / "run"
    codec = train_bpe(["the bridge is safe"] * 5, 270, run / "tokenizer.json")
    config = dataclasses.replace(CONFIG, vocab_size=codec.vocab_size)
    with Checkpoints(run, keep=2, meta=describe(config)) as saved:
        for step in (0, 10):
            saved.save(State(init_params(config, step), None, jnp.int32(step)), {})
    return run


@pytest.fixture
def run(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(damage, "WAITS", (0.0,))
    return shutil.copytree(whole, tmp_path / "run")


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def metadata(folder):
    return folder / "meta" / "metadata"


SEEN = {
    "no facts": lambda step: shutil.rmtree(step / "meta"),
    "empty": lambda step: (shutil.rmtree(step), step.mkdir()),
    "no parameters": lambda step: shutil.rmtree(step / "params"),
    "facts cut off": lambda step: os.truncate(metadata(step), 50),
    "facts changed": lambda step: metadata(step).write_text(
        metadata(step).read_text().replace('"step": 10', '"step": 9')
    ),
}


@pytest.mark.parametrize("harm", SEEN)
def test_the_newest_whole_step_is_taken_with_a_note(run, harm, caplog):
    SEEN[harm](run / "checkpoints/10")
    model = load(run)
    assert model.facts["step"] == 0
    wanted = init_params(model.config, 0)["embedding"].get_value()
    np.testing.assert_array_equal(model.params["embedding"].get_value(), wanted)
    assert "checkpoint 10" in caplog.text
    assert "step 0 is taken" in caplog.text
    with pytest.raises(UserError, match=r"step 10 cannot be read[\s\S]*--step=0"):
        load(run, 10)


@pytest.mark.parametrize("harm", SEEN)
def test_of_a_run_that_has_ended_no_older_step_stands_for_the_last(run, harm):
    write_json(run / "done.json", {"steps": 10})
    SEEN[harm](run / "checkpoints/10")
    with pytest.raises(UserError, match=r"step 10 cannot be read[\s\S]*--step=0"):
        load(run)
    assert load(run, 0).facts["step"] == 0


def test_arrays_that_are_cut_off_are_found_on_reading_and_the_older_step_is_named(run):
    os.truncate(largest(run / "checkpoints/10/params"), 100)
    with pytest.raises(UserError, match=r"step 10 cannot be read[\s\S]*--step=0"):
        load(run)


def test_a_passing_error_is_not_taken_for_half_a_checkpoint(run, monkeypatch):
    def fails(meta):
        if meta["step"] == 10:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(loading, "verify_meta", fails)
    with pytest.raises(UserError, match=r"checkpoint 10 could not be read"):
        load(run)


def test_without_another_step_it_says_to_train_again(run):
    shutil.rmtree(run / "checkpoints/0")
    SEEN["no facts"](run / "checkpoints/10")
    with pytest.raises(UserError, match="train the run again"):
        load(run)
