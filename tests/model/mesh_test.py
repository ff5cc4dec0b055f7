"""Every mesh gives the loss curve of one device; which hosts load which rows; devices of several slices."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh

from alignpre_jax.foundation import UserError
from alignpre_jax.model.mesh import MESH_AXES, _stretch, arrange, check_batch, parse_mesh

MESHES = (
    "data:8",
    "fsdp:4,tensor:2",
    "sequence:8",
    "data:2,fsdp:2,sequence:2",
    "fsdp:2,sequence:2,tensor:2",
)
STEPS, ROWS, LENGTH = 20, 8, 32


def _curves():
    """Prints the losses of 20 steps on one device and on every mesh, and how attention was split."""
    from alignpre_jax.mixture import Batch
    from alignpre_jax.model import DecoderConfig, parse_mesh
    from alignpre_jax.objectives import Mle
    from alignpre_jax.training import Fixed, OptimizerConfig, ScheduleConfig, StepConfig, make_train_step

    model = DecoderConfig(
        vocab_size=60, layers=1, width=16, heads=4, kv_heads=2, head_dim=8, mlp_width=32, vocab_multiple=16,
        max_length=LENGTH, qk_norm="head", layout="unroll", dtype="float32",
    )  # fmt: skip
    config = StepConfig(
        model, Mle(z_loss=1e-3, chunk_bytes=4096), OptimizerConfig(accumulate=1),
        ScheduleConfig(peak=3e-3), steps=STEPS, sources=2,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(1, 4, (ROWS, LENGTH), np.int32), axis=1)
    segments[:, -3:] = 0
    sources = rng.integers(0, 2, ROWS).astype(np.int32)
    tokens = [rng.integers(0, 60, (ROWS, LENGTH), np.int32) for _ in range(STEPS)]
    batches = [Batch({"tokens": each, "segments": segments}, sources) for each in tokens]
    found = {}
    for text in ("one", *MESHES):
        mesh = parse_mesh("fsdp:1", jax.devices()[:1]) if text == "one" else parse_mesh(text)
        with jax.set_mesh(mesh):
            step = make_train_step(config, mesh)
            state, curve = step.init(step.fresh_params(0)), []
            for batch in batches:
                state, values = step.run(state, Fixed(), jax.device_put(batch, step.batch))
                curve.append(float(values["loss"]))
        found[text] = curve
    print(json.dumps(found))


def _splash():
    """Prints how far splash attention on split rows is from the reference, in values and gradients."""
    import jax.numpy as jnp

    from alignpre_jax.model import parse_mesh
    from alignpre_jax.model.attention import splash_attention
    from alignpre_jax.model.attention_xla import causal_mask, xla_attention

    L, keys = 256, jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, heads, L, 128)) for key, heads in zip(keys, (4, 2, 2), strict=True))
    segments = 1 + (jnp.arange(L) >= jnp.array([[100], [130]])).astype(jnp.int32)

    def reference(q, k, v):
        return jnp.sum(jnp.sin(xla_attention(q, k, v, causal_mask(segments, L))))

    def split(q, k, v):
        return jnp.sum(jnp.sin(splash_attention(q, k, v, segments, interpret=True)))

    wanted = jax.value_and_grad(reference, argnums=(0, 1, 2))(q, k, v)
    with jax.set_mesh(parse_mesh("data:2,sequence:2,tensor:2")):
        found = jax.jit(jax.value_and_grad(split, argnums=(0, 1, 2)))(q, k, v)
    gaps = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b) / (1 + np.abs(b)))), found, wanted)
    print(json.dumps(jax.tree.leaves(jax.device_get(gaps))))


def on_eight_devices(name):
    """What a function of this file prints in a process with eight devices: their number is fixed when JAX starts."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"  # compiles in half the time
    done = subprocess.run(
        [sys.executable, __file__, name],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_mesh_gives_the_curve_of_one_device():
    found = on_eight_devices("_curves")
    assert len(found["one"]) == STEPS
    assert len(set(found["one"])) == STEPS
    for mesh in MESHES:
        np.testing.assert_allclose(found[mesh], found["one"], atol=1e-5, rtol=0, err_msg=mesh)


@pytest.mark.slow
def test_splash_on_parts_of_rows_equals_the_reference():
    gaps = on_eight_devices("_splash")
    assert len(gaps) == 4
    assert max(gaps) < 1e-3


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the arrangement asks of a device."""

    id: int
    process_index: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0


def chips(slices, side=2):
    """Slices of side x side chips; a host has a row of each."""
    places = np.ndindex(slices, side, side)
    return [Chip(n, n // side, s, (x, y, 0)) for n, (s, x, y) in enumerate(places)]


def test_slices_are_along_the_data_axis_unless_told_otherwise():
    devices = chips(slices=2)
    placed = arrange([1, 4, 1, 1], [2, 1, 1, 1], devices)
    assert placed.shape == (2, 4, 1, 1)
    for part in range(2):
        assert {device.slice_index for device in placed[part].flat} == {part}
    placed = arrange([1, 2, 1, 2], [1, 2, 1, 1], devices)  # fsdp over both
    assert [[device.slice_index for device in row.flat] for row in placed[0]] == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(UserError, match=r"does not fit 2 slice\(s\)"):
        parse_mesh("fsdp:4", devices, dcn="data:3")


def test_a_host_loads_the_rows_of_its_devices():
    grid = np.array(chips(slices=2), dtype=object)  # four hosts of two chips
    assert [_stretch(grid.reshape(8, 1, 1, 1), host) for host in range(4)] == [(n, 4) for n in range(4)]
    assert [_stretch(grid.reshape(2, 1, 1, 4), host) for host in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert [_stretch(grid.reshape(1, 1, 2, 4), host) for host in range(4)] == [(0, 1)] * 4
    with pytest.raises(UserError, match="not one stretch"):
        _stretch(grid.reshape(4, 2).T.reshape(8, 1, 1, 1), 0)


def test_rows_that_do_not_divide():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), MESH_AXES)
    check_batch(mesh, 3, 5)
    split = AbstractMesh((1, 2, 4, 1), MESH_AXES)
    check_batch(split, 4, 8)
    with pytest.raises(UserError, match="batch of 3 rows does not divide over 2 shards"):
        check_batch(split, 3, 8)
    with pytest.raises(UserError, match="rows of 6 tokens do not divide into 4 parts"):
        check_batch(split, 4, 6)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
