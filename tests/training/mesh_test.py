"""Every mesh gives the loss curve of one device; which hosts load which rows; devices of several slices."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

MESHES = (
    "data:8",
    "fsdp:8",
    "sequence:8",
    "data:4,tensor:2",
    "data:2,fsdp:2,sequence:2",
    "fsdp:2,sequence:2,tensor:2",
)
STEPS, ROWS, LENGTH = 20, 8, 32


def _curves():
    """Prints the losses of 20 steps on one device and on every mesh, and how attention was split."""
    from alignpre_jax.mixture import Batch
    from alignpre_jax.model import DecoderConfig
    from alignpre_jax.objectives import ObjectiveConfig
    from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step, parse_mesh

    model = DecoderConfig(
        vocab_size=60, layers=2, width=16, heads=4, kv_heads=2, head_dim=8, mlp_width=32, vocab_multiple=16,
        max_length=LENGTH, qk_norm="head", dtype="float32",
    )  # fmt: skip
    config = StepConfig(
        model, ObjectiveConfig(z_loss=1e-3, chunk_bytes=4096), OptimizerConfig(accumulate=1),
        ScheduleConfig(peak=3e-3), steps=STEPS, sources=2,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(1, 4, (ROWS, LENGTH), np.int32), axis=1)
    segments[:, -3:] = 0
    sources = rng.integers(0, 2, ROWS).astype(np.int32)
    batches = [Batch(rng.integers(0, 60, (ROWS, LENGTH), np.int32), segments, sources) for _ in range(STEPS)]
    found = {}
    for text in ("one", *MESHES):
        mesh = parse_mesh("fsdp:1", jax.devices()[:1]) if text == "one" else parse_mesh(text)
        with jax.set_mesh(mesh):
            step = make_train_step(config, mesh)
            state, curve = step.init(step.fresh_params(0)), []
            for batch in batches:
                state, values = step.run(state, jax.device_put(batch, step.batch))
                curve.append(float(values["loss"]))
        found[text] = curve
    print(json.dumps(found))


def on_eight_devices(name):
    """What a function of this file prints in a process with eight devices: their number is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
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
    assert found["one"][-1] != found["one"][0]
    for mesh in MESHES:
        np.testing.assert_allclose(found[mesh], found["one"], atol=1e-5, rtol=0, err_msg=mesh)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
