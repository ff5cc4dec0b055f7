"""Which processes a study's jobs are given."""

import subprocess

import pytest
from config_files import load_config

from alignpre_jax.foundation import build, silent
from alignpre_jax.launch import local
from alignpre_jax.launch import workers as workers_module
from alignpre_jax.study import StudyConfig, job_graph, open_workspace


class Refused(Exception):
    """Raised in place of starting a process."""


@pytest.mark.parametrize(("workers", "threads"), [(0, "1"), (1, "4"), (2, "2")])
def test_a_jobs_threads_do_not_depend_on_what_is_left(tmp_path, monkeypatch, workers, threads):
    """The last bits of a sum depend on them, and a study that goes on must end with the numbers of one that did not."""
    started = []

    def refuse(command, env, **_):
        started.append(env)
        raise Refused

    space = open_workspace(build(StudyConfig, load_config("small_world").to_dict()), tmp_path / "study")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for module in (local, workers_module):
        monkeypatch.setattr(module, "cores", lambda: 4)
    graph = job_graph(space.tree)
    assert len(graph) > 4
    for left in (len(graph), 1):
        monkeypatch.setattr(local, "is_done", lambda _, job, left=left: job.name not in list(graph)[-left:])
        monkeypatch.setattr(local, "run_job", lambda *_: None)  # that is prepare, in this process
        with pytest.raises(Refused):
            local.run(space, graph, silent, workers)
    assert [env["NPROC"] for env in started] == [threads, threads]
