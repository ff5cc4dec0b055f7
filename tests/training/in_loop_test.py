"""Evals during training are run at the steps that are due, and a run that is killed loses none."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.checkpoints import load
from alignpre_jax.foundation import Event, Interrupted, UserError
from alignpre_jax.training import InLoopEvals, train
from alignpre_jax.training.watchdog import Watchdog


class Record:
    """Notes the steps it was run at and a number that the parameters decide; dies or asks to stop at a step."""

    def __init__(self, fails_at=None, stops_at=None):
        self.seen, self.fails_at, self.stops_at = {}, fails_at, stops_at
        self.tried = []

    def __call__(self, step, params, mesh, report):
        self.tried.append(step)
        if step == self.fails_at:
            raise KeyboardInterrupt
        self.seen[step] = float(sum(np.abs(np.asarray(leaf)).sum() for leaf in jax.tree.leaves(params)))
        if step == self.stops_at:
            os.kill(os.getpid(), signal.SIGTERM)


def with_evals(run, record, **due):
    return dataclasses.replace(run, evals=(InLoopEvals(record, **due),))


@pytest.mark.parametrize(("due", "steps"), [({"every_steps": 4}, [4, 8, 12]), ({"every_tokens": 1000}, [4, 8, 12])])
def test_evals_are_run_on_the_parameters_of_their_step(make_run, due, steps):
    record = Record()
    run = with_evals(make_run(), record, **due)
    train(run)
    assert record.tried == steps
    params = load(run.run_dir, 12).params
    last = Record()
    last(12, params, None, None)
    assert last.seen[12] == pytest.approx(record.seen[12], rel=1e-6)


def test_an_eval_that_was_killed_is_run_at_the_next_start_on_the_same_parameters(make_run):
    whole, record = Record(), Record(fails_at=8)
    train(with_evals(make_run("whole"), whole, every_steps=4))
    run = make_run("killed")
    with pytest.raises(KeyboardInterrupt):
        train(with_evals(run, record, every_steps=4))
    assert record.tried == [4, 8]
    again = Record()
    train(with_evals(run, again, every_steps=4))
    assert again.tried == [8, 12]
    assert record.seen | again.seen == whole.seen


def test_a_stop_asked_for_at_a_step_that_is_due_defers_its_eval(make_run, monkeypatch):
    """SIGTERM comes during the eval of step 4; step 5 is due as well: it is saved, and the next start evaluates it."""
    record = Record(stops_at=4)
    run = make_run()
    with pytest.raises(Interrupted):
        train(with_evals(run, record, every_steps=1))
    assert record.tried[:4] == [1, 2, 3, 4]
    again = Record()
    train(with_evals(run, again, every_steps=1))
    assert sorted({*record.seen, *again.seen}) == list(range(1, 13))


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 200))
def test_evals_by_token_come_once_for_every_so_many_tokens(every, per_step, steps):
    evals = InLoopEvals(lambda *given: None, every_tokens=every)
    due = [step for step in range(1, steps + 1) if evals.due(step, per_step)]
    expected = sorted({-(-every * n // per_step) for n in range(1, steps * per_step // every + 1)})
    assert due == expected


def test_a_negative_interval_is_a_users_error():
    with pytest.raises(UserError, match="give 0 for none"):
        InLoopEvals(lambda *given: None, every_steps=-1)


def test_evals_get_the_mesh_of_the_training_and_a_deadline_that_progress_renews(make_run, monkeypatch):
    """Deadlines are noted instead of kept: the start's is not that of the evals, however long these take."""
    run, seen, allowed = make_run(steps=2), [], []
    monkeypatch.setattr(Watchdog, "allow", lambda self, phase, seconds: allowed.append((phase, seconds)))

    def look(step, params, mesh, report):
        seen.append(mesh.axis_names == ("data", "fsdp", "sequence", "tensor") and dict(mesh.shape))
        for done in (1, 2):
            report(Event("eval", done, 2))

    minutes = dataclasses.replace(run.loop, start_minutes=7.0, eval_minutes=3.0, mesh="data:1")
    notes = []
    evals = InLoopEvals(look, every_steps=2)
    train(dataclasses.replace(run, loop=minutes, evals=(evals,)), lambda event: notes.append(event.task))
    assert seen == [{"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1}]
    assert [seconds for phase, seconds in allowed if phase == "evals"] == [180.0] * 3
    assert notes.count("eval") == 2
