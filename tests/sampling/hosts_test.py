"""Two processes: the first drives, the second follows, and both compute on a mesh over both."""

import json
import os
import socket
import subprocess
import sys

import pytest

from alignpre_jax.foundation import UserError, build, canonical_json
from alignpre_jax.sampling import Choice, Regex, Request, TopP


@pytest.mark.parametrize("within", [None, Regex("a+"), Choice(("report it", "hide it"))])
def test_a_request_comes_through_as_it_was(within):
    request = Request((0, "so"), TopP(0.9), 9, seed=2, stop=("a", "b"), banned=(3,), begin="re", within=within)
    assert build(Request, json.loads(canonical_json(request.describe()))) == request


@pytest.mark.slow
def test_the_first_process_drives_and_the_other_follows():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, f"localhost:{port}"]
    both = [
        subprocess.Popen([*command, str(n)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    try:
        shown = [process.communicate(timeout=900) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], shown
    assert [out.split()[-1] for out, _ in shown] == ["equal", "followed"]


def _run(address: str, number: int):
    import jax
    import numpy as np

    from alignpre_jax.model import init_params, make_mesh, param_shardings
    from alignpre_jax.sampling import Engine, Led, Temperature, follow
    from tests.sampling.conftest import BUCKETS, CONFIG, Characters
    from tests.sampling.score_test import REQUESTS

    jax.distributed.initialize(address, 2, number)
    mesh = make_mesh({"data": 2})
    params = init_params(CONFIG, 0)
    spread = jax.tree.map(
        lambda x, place: jax.make_array_from_callback(x.shape, place, lambda at, x=x: np.asarray(x)[at]),
        params,
        param_shardings(CONFIG, mesh),
    )
    engine = Engine(spread, CONFIG, Characters(), buckets=BUCKETS, mesh=mesh)
    if number:
        follow(engine)
        print("followed")
        return
    wanted = Engine(params, CONFIG, Characters(), buckets=BUCKETS)
    asked = [
        Request("tell me", Temperature(2.0), 9, seed=1),
        Request((0, "so"), Temperature(2.0), 9, seed=2, stop=("a",)),
    ]
    with Led(engine) as led:
        for ours, theirs in zip(led.score(REQUESTS), wanted.score(REQUESTS), strict=True):
            np.testing.assert_allclose([s.logprob for s in ours], [s.logprob for s in theirs], atol=1e-4)
        with pytest.raises(UserError, match="without a token"):
            led.score([("a", ("",))])
        assert led.complete(asked) == wanted.complete(asked)
    print("equal")


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
