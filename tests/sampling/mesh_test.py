"""Four devices, tensor-parallel and data-parallel, give what one gives."""

import os
import subprocess
import sys

import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.model import init_params, make_mesh, param_shardings


@pytest.mark.slow
def test_four_devices_equal_one():
    """In a process of its own, because the number of devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"]


def _compare():
    import dataclasses

    import jax

    from alignpre_jax.sampling import Engine, Greedy, Temperature
    from tests.sampling.conftest import BUCKETS, CONFIG, Characters
    from tests.sampling.score_test import REQUESTS

    config = dataclasses.replace(CONFIG, kv_heads=2, vocab_multiple=2, tied_embeddings=False)
    params = init_params(config, 0)
    prompts = ["tell me", "so", "a somewhat longer prompt", "x", "yes?"]
    wanted = Engine(params, config, Characters(), buckets=BUCKETS)
    mesh = make_mesh({"data": 2, "tensor": 2})
    spread = jax.device_put(params, param_shardings(config, mesh))
    for int8 in (False, True):
        wanted = Engine(params, config, Characters(), buckets=BUCKETS, int8=int8)
        found = Engine(spread, config, Characters(), buckets=BUCKETS, mesh=mesh, int8=int8)
        for ours, theirs in zip(found.score(REQUESTS), wanted.score(REQUESTS), strict=True):
            np.testing.assert_allclose([s.logprob for s in ours], [s.logprob for s in theirs], atol=1e-4)
        for strategy in (Greedy(), Temperature(2.0)):
            assert found.generate(prompts, strategy, 9) == wanted.generate(prompts, strategy, 9)
        assert found._weights.layers[0]["q"].sharding.spec[1] == "tensor"
    parts = make_mesh({"sequence": 2, "tensor": 2})
    spread = jax.device_put(params, param_shardings(config, parts))
    found = Engine(spread, config, Characters(), buckets=BUCKETS, mesh=parts)
    wanted = Engine(params, config, Characters(), buckets=BUCKETS)
    for ours, theirs in zip(found.score(REQUESTS), wanted.score(REQUESTS), strict=True):
        np.testing.assert_allclose([s.logprob for s in ours], [s.logprob for s in theirs], atol=1e-4)
    with pytest.raises(UserError, match="splits rows"):
        found.generate(prompts, Greedy(), 9)
    print("equal")


if __name__ == "__main__":
    _compare()
