"""Our executor inside XManager itself (pip install 'alignpre_jax[launch]')."""

import threading

import pytest
from absl import flags
from config_files import load_config

from alignpre_jax.foundation import UserError
from alignpre_jax.launch import bundles, plan_experiment

pytest.importorskip("xmanager")


class Recorder:
    """A target that notes what ran, in which order."""

    def __init__(self, fails=""):
        self.ran, self.fails, self.lock = {}, fails, threading.Lock()

    def run(self, name, command, say):
        with self.lock:
            self.ran[name] = (list(command), set(self.ran))
        if self.fails and self.fails in " ".join(command):
            raise UserError("it fell over", where=name)

    def delete(self, name):
        raise AssertionError(name)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # XManager keeps its database there
    flags.FLAGS.mark_as_parsed()
    config = load_config("small_world")
    config.seeds = (0,)
    return plan_experiment(config, [{}], tmp_path / "study")


def test_every_bundle_runs_after_those_it_needs(experiment):
    from alignpre_jax.launch.xmanager import run_xmanager

    target = Recorder()
    run_xmanager(experiment, "gs://bucket/x", target)
    made = bundles(experiment)
    assert set(target.ran) == set(made)
    for name, (command, before) in target.ran.items():
        assert set(made[name].needs) <= before
        assert command[:2] == ["alignpre", "job"]
        assert command[-1] == "--workdir=/mnt/alignpre/x"


def test_a_failure_is_told_and_stops_what_needs_it(experiment):
    from alignpre_jax.launch.xmanager import run_xmanager

    target = Recorder(fails="train/seed0/pretrain")
    with pytest.raises(UserError, match="6 jobs failed"):
        run_xmanager(experiment, "gs://bucket/x", target)
    assert {bundles(experiment)[name].label for name in target.ran} == {"prepare", "seed0/pretrain"}
