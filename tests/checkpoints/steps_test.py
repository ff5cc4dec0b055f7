"""What happens to checkpoints that are damaged, cannot be read just now, or were made otherwise."""

import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.checkpoints import Checkpoints, State, damage, steps
from alignpre_jax.checkpoints.folder import passed_over, saved_steps
from alignpre_jax.foundation import UserError

MADE = {"optimizer": {"name": "adamw"}, "rows": {"web": "0a1b"}}


def state(step):
    return State({"w": jnp.full((4, 3), float(step))}, {"m": jnp.zeros(3)}, jnp.int32(step))


ABSTRACT = State(*(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(damage, "WAITS", (0.0, 0.0))


@pytest.fixture
def run(tmp_path):
    """A run's folder with the checkpoints 3 and 5."""
    with Checkpoints(tmp_path, keep=2, meta={"made": MADE}) as saved:
        for step in (3, 5):
            saved.save(state(step), {})
    return tmp_path


def restore(run, made=MADE, say=lambda *said: None):
    with Checkpoints(run, keep=2, meta={"made": made}) as saved:
        return saved.restore_latest(ABSTRACT, say)


def failing(error, times):
    """A `_restore` that raises the first times that it is called."""
    real, left = Checkpoints._restore, [error] * times

    def fails(self, step, abstract):
        if left:
            raise left.pop()
        return real(self, step, abstract)

    return fails


def flip(folder):
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(bytes([file.read_bytes()[0] ^ 0x10]) + file.read_bytes()[1:])


PASSING = {
    "i/o error": OSError(errno.EIO, os.strerror(errno.EIO)),
    "stale handle": OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    "timed out": TimeoutError("the bucket does not answer"),
    "TensorStore": ValueError("UNAVAILABLE: Error reading gs://bucket/x: connection reset"),
    "TensorStore's i/o error": ValueError("NOT_FOUND: Failed to open: ... [os_error_code='5']"),
}


@pytest.mark.parametrize("name", PASSING)
def test_an_error_that_may_pass_moves_nothing(run, name, monkeypatch):
    monkeypatch.setattr(Checkpoints, "_restore", failing(PASSING[name], times=99))
    with pytest.raises(UserError, match="checkpoint 5 could not be read"):
        restore(run)
    assert saved_steps(run) == [3, 5]
    assert not (run / "damaged").exists()


def test_an_error_that_has_passed_is_not_heard_of(run, monkeypatch):
    monkeypatch.setattr(Checkpoints, "_restore", failing(OSError(errno.EIO, "Input/output error"), times=2))
    assert int(restore(run).state.step) == 5


def test_an_error_of_the_disk_below_the_libraries_moves_nothing(run):
    for file in (run / "checkpoints/5/params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.unlink()
            file.symlink_to(file)  # "too many levels of symbolic links", as TensorStore tells it
    with pytest.raises(UserError, match=r"could not be read.*symbolic links"):
        restore(run)
    assert saved_steps(run) == [3, 5]


def test_a_device_that_fails_is_no_damage(run, monkeypatch):
    lost = jax.errors.JaxRuntimeError("INTERNAL: the device was lost")
    monkeypatch.setattr(Checkpoints, "_restore", failing(lost, times=99))
    with pytest.raises(jax.errors.JaxRuntimeError):
        restore(run)
    assert saved_steps(run) == [3, 5]


def test_a_damaged_one_is_moved_and_the_one_before_is_taken(run):
    flip(run / "checkpoints/5/params")
    said = []
    found = restore(run, say=lambda *event: said.append(event))
    np.testing.assert_array_equal(found.state.trained["w"], state(3).trained["w"])
    assert [(kind, step) for kind, step, _ in said] == [("damaged checkpoint", 5)]
    assert saved_steps(run) == [3]
    assert (run / "damaged/5-0/params").exists()


def test_if_all_are_damaged_nothing_is_moved_and_training_does_not_start_anew(run):
    for step in (3, 5):
        flip(run / f"checkpoints/{step}/params")
    with pytest.raises(UserError, match=r"none is whole[\s\S]*checkpoints/5 is damaged[\s\S]*checkpoints/3 is damaged"):
        restore(run)
    assert saved_steps(run) == [3, 5]


def test_in_an_object_store_a_damaged_one_stays_and_is_passed_over(run, monkeypatch):
    monkeypatch.setattr(steps, "can_rename", lambda folder: False)
    flip(run / "checkpoints/5/params")
    assert int(restore(run).state.step) == 3
    assert (run / "checkpoints/5/params").exists()
    assert passed_over(run) == {5}
    assert json.loads((run / "damaged/5.json").read_text())["step"] == 5
    assert saved_steps(run) == [3]
    said = []
    with Checkpoints(run, keep=1, meta={"made": MADE}) as saved:
        assert int(saved.restore_latest(ABSTRACT, lambda *event: said.append(event)).state.step) == 3
        saved.save(state(4), {})
    assert not said
    assert saved_steps(run) == [4]  # the damaged one does not count as the newest
    with Checkpoints(run, keep=1, meta={"made": MADE}) as saved:
        saved.save(state(5), {})
    assert passed_over(run) == set()
    assert int(restore(run).state.step) == 5


def test_one_that_was_copied_in_part_is_set_aside(run):
    shutil.rmtree(run / "checkpoints/5/meta")
    assert int(restore(run).state.step) == 3


def test_what_was_made_otherwise_is_refused_with_the_difference(run):
    other = {"optimizer": {"name": "sgd"}, "rows": {"web": "0a1b", "books": "77"}}
    with pytest.raises(UserError) as refused:
        restore(run, other)
    assert "optimizer.name: adamw -> sgd" in str(refused.value)
    assert "rows.books: (absent) -> 77" in str(refused.value)
    assert saved_steps(run) == [3, 5]
