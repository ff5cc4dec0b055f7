"""Sharding rules; and a sharded decoder on eight virtual devices against one device."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from alignpre_jax.foundation import UserError
from alignpre_jax.model import DecoderConfig, get_preset, make_mesh, param_shardings, parameters
from alignpre_jax.model.sharding import STORAGE, logical_axes, partition

CONFIG = DecoderConfig(
    vocab_size=60,
    layers=2,
    width=16,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=24,
    vocab_multiple=16,
    max_length=16,
    dtype="float32",
)


def test_first_match_wins_and_absent_axes_split_nothing():
    rules = (("mlp", ("tensor",)), ("mlp", ("fsdp",)), ("embed", ("fsdp",)))
    assert partition(("embed", "mlp"), (8, 8), {"fsdp": 2, "tensor": 4}, rules, "up") == P("fsdp", "tensor")
    assert partition(("embed", "mlp"), (8, 8), {"tensor": 4}, rules, "up") == P(None, "tensor")


def test_large_presets_shard_on_a_pod():
    mesh = AbstractMesh((8, 4), ("fsdp", "tensor"))
    for name in ("pythia_6p9b", "llama2_7b", "qwen3_8b"):
        config = get_preset(name)
        shardings = param_shardings(config, mesh)
        assert shardings["blocks"]["q"].get_value().spec == P(None, "fsdp", "tensor", None)
        assert shardings["embedding"].get_value().spec == P("tensor", "fsdp")
        assert logical_axes(config)["blocks"]["down"].get_value() == parameters(config)["blocks.down"].axes


def test_what_does_not_divide_is_named():
    with pytest.raises(UserError, match=r"'kv_heads' of blocks.k has size 2, which mesh axes tensor=4 do not divide"):
        param_shardings(CONFIG, AbstractMesh((2, 4), ("fsdp", "tensor")))


def test_a_collision_is_named():
    rules = (("embed", ("fsdp",)), ("mlp", ("fsdp",)), *STORAGE)
    with pytest.raises(UserError, match=r"blocks.gate .* both split over mesh axis 'fsdp'"):
        param_shardings(CONFIG, AbstractMesh((2,), ("fsdp",)), rules)


def test_a_mesh_needs_its_devices():
    with pytest.raises(UserError, match="needs 64 devices"):
        make_mesh({"data": 64})


@pytest.mark.slow
def test_eight_devices_equal_one():
    """In a process of its own, because the number of devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
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
    import jax.numpy as jnp

    from alignpre_jax.model import bind, init_params
    from alignpre_jax.objectives import Mle, Models, total

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Rows:
        tokens: jax.Array
        segments: jax.Array

    tokens = jax.random.randint(jax.random.key(0), (8, 16), 0, CONFIG.vocab_size)
    rows = Rows(tokens, jnp.where(jnp.arange(16) < 7, 1, 2) * jnp.ones_like(tokens))

    @jax.value_and_grad
    def step(params, rows):
        objective = Mle(chunk_bytes=4096)
        return total(objective.terms(Models(bind(CONFIG, params)), rows)[0], objective.weights(rows))

    params = init_params(CONFIG, 0)
    wanted = jax.jit(step)(params, rows)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    with jax.set_mesh(mesh):
        shardings = param_shardings(CONFIG, mesh)
        params = jax.device_put(params, shardings)
        assert params["blocks"]["q"][...].sharding.spec == P(None, "fsdp", "tensor", None)
        batch = jax.sharding.NamedSharding(mesh, P(("data", "fsdp")))
        found = jax.jit(step, in_shardings=(shardings, batch), out_shardings=(None, shardings))(
            params, jax.device_put(rows, batch)
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4), found, wanted)
    print("equal")


if __name__ == "__main__":
    _compare()
