"""Several seeds in one program: each as it would have been alone."""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from alignpre_jax.checkpoints import load
from alignpre_jax.foundation import UserError, read_json, read_jsonl
from alignpre_jax.training import TIMES, is_done, train
from alignpre_jax.training.seeds import check_alike, train_seeds

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STEPS = 24


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """A run of the tiny decoder: its seed chooses the first parameters and the order of the rows."""
    folder = tmp_path_factory.mktemp("seeds")
    sys.path.insert(0, str(ROOT))
    from tools.drill_faults import make_rows, tiny_run

    make_rows(folder)

    def make(name, seed, lora=False, **loop):
        given = argparse.Namespace(bad="", folder=folder, run=folder / name, steps=STEPS, step_seconds=0.0, lora=lora)
        run = tiny_run(given)
        plan = dataclasses.replace(run.plan, base=dataclasses.replace(run.plan.base, seed=seed))
        return dataclasses.replace(run, seed=seed, plan=plan, loop=dataclasses.replace(run.loop, **loop))

    return make


@pytest.fixture(scope="module")
def alone(make_run):
    """Seeds 0, 1, 2, one after the other."""
    runs = [make_run(f"alone{seed}", seed) for seed in range(3)]
    for run in runs:
        train(run)
    return runs


def compare(one, other):
    """Losses and parameters within 1e-6, batches bit for bit."""
    lines, wanted = (list(read_jsonl(run.run_dir / "metrics.jsonl")) for run in (one, other))
    assert [line["batch_fingerprint"] for line in lines] == [line["batch_fingerprint"] for line in wanted]
    assert set(lines[0]) - set(TIMES) == set(wanted[0]) - set(TIMES)
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in wanted], rtol=0, atol=1e-6)
    params, expected = (jax.tree.leaves(load(run.run_dir).params) for run in (one, other))
    for leaf, want in zip(params, expected, strict=True):
        np.testing.assert_allclose(leaf, want, rtol=0, atol=1e-6)
    assert read_json(one.run_dir / "done.json")["plan"] == read_json(other.run_dir / "done.json")["plan"]


def test_three_seeds_are_those_of_separate_runs(alone, make_run):
    runs = [make_run(f"together{seed}", seed) for seed in range(3)]
    train_seeds(runs)
    for run, other in zip(runs, alone, strict=True):
        compare(run, other)
    losses = {read_json(run.run_dir / "done.json")["parameters"] for run in runs}
    assert len(losses) == 3


def test_they_go_on_from_different_steps_and_leave_at_different_times(alone, make_run):
    """One is done before, one fails on the way, two go on from different steps."""
    runs = [make_run(f"mixed{seed}", seed) for seed in range(3)]

    class Stop(Exception):
        pass

    def stop_at(step):
        def report(event):
            if event.done == step:
                raise Stop

        return report

    for run, step in ((runs[0], 6), (runs[1], 14)):
        with pytest.raises(Stop):
            train(run, stop_at(step))
    train(runs[2])
    train_seeds(runs)
    for run, other in zip(runs, alone, strict=True):
        compare(run, other)
    starts = [
        [line["step"] for line in read_jsonl(run.run_dir / "events.jsonl") if line["event"] == "start"] for run in runs
    ]
    assert starts == [[0, 4], [0, 12], [0]]


@pytest.mark.parametrize("lora", [False, True])
def test_bits_do_not_depend_on_who_was_done_before(make_run, lora):
    """One seed is stopped on the way and goes on when the others are done; its bits are those of an undisturbed run."""
    whole = [make_run(f"whole{lora}{seed}", seed, lora) for seed in range(3)]
    train_seeds(whole)
    runs = [make_run(f"stopped{lora}{seed}", seed, lora) for seed in range(3)]

    def report(event):
        if event.task == f"stopped{lora}1" and event.done == 9:
            raise UserError("the disk is full", where="here")

    with pytest.raises(UserError, match="disk is full"):
        train_seeds(runs, report)
    assert [is_done(run.run_dir) for run in runs] == [True, False, True]
    train_seeds(runs)
    for run, other in zip(runs, whole, strict=True):
        one, wanted = (read_json(each.run_dir / "done.json")["parameters"] for each in (run, other))
        assert one == wanted, run.name


def test_bits_do_not_depend_on_seeds_that_are_added_later(make_run):
    whole = [make_run(f"full{seed}", seed) for seed in range(2)]
    train_seeds(whole)
    grown = [make_run(f"grown{seed}", seed) for seed in range(2)]
    train_seeds(grown[:1], places=2)
    train_seeds(grown, places=2)
    digests = [[read_json(run.run_dir / "done.json")["parameters"] for run in runs] for runs in (whole, grown)]
    assert digests[0] == digests[1]


def test_one_that_fails_leaves_and_the_others_go_on(alone, make_run):
    runs = [make_run(f"failing{seed}", seed) for seed in range(2)]

    def report(event):
        if event.task == "failing1" and event.done == 9:
            raise UserError("the disk is full", where="here")

    with pytest.raises(UserError, match="disk is full"):
        train_seeds(runs, report)
    compare(runs[0], alone[0])
    assert not (runs[1].run_dir / "done.json").exists()


def test_runs_of_another_kind_are_refused(make_run):
    with pytest.raises(UserError, match="more than the seed"):
        check_alike([make_run("x", 0), make_run("y", 1, log_every=2)])
