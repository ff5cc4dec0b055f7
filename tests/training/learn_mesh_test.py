"""Adapters on eight devices: every mesh, and every order of its devices, gives the loss curve of one device."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

MESHES = ("data:8", "fsdp:4,tensor:2", "fsdp:2,sequence:2,tensor:2")
SPLIT = "data:2,fsdp:4"
STEPS, ROWS, LENGTH = 10, 8, 32


def _curves():
    """Prints the losses on one device, on every mesh, and on one mesh with its devices in three orders."""
    from alignpre_jax.mixture import Batch
    from alignpre_jax.model import DecoderConfig, Lora
    from alignpre_jax.model.mesh import parse_mesh
    from alignpre_jax.objectives import Mle
    from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step

    model = DecoderConfig(
        vocab_size=60, layers=2, width=16, heads=4, kv_heads=2, head_dim=8, mlp_width=32, vocab_multiple=16,
        max_length=LENGTH, layout="scan", dtype="float32",
    )  # fmt: skip
    b0 = StepConfig(
        model, Mle(chunk_bytes=4096), OptimizerConfig(), ScheduleConfig(peak=1e-2), steps=STEPS, sources=2,
        learn=Lora(rank=4, alpha=8.0),
    )  # fmt: skip
    a0 = dataclasses.replace(b0, learn=dataclasses.replace(b0.learn, init="a0"))
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(1, 4, (ROWS, LENGTH), np.int32), axis=1)
    stores = rng.integers(0, 2, ROWS).astype(np.int32)
    tokens = (rng.integers(0, 60, (STEPS, ROWS, 1)) + 7 * np.arange(LENGTH)).astype(np.int32) % 60
    batches = [Batch({"tokens": tokens[n], "segments": segments}, stores) for n in range(STEPS)]

    def curve(config, text, devices):
        mesh = parse_mesh(text, devices)
        with jax.set_mesh(mesh):
            step = make_train_step(config, mesh)
            state, fixed = step.start(step.fresh_params(0), 1)
            losses = []
            for batch in batches:
                state, values = step.run(state, fixed, jax.device_put(batch, step.batch))
                losses.append(float(values["loss"]))
        spec = state.trained["blocks"]["q_lora_a"][...].sharding.spec
        return losses, [str(axis) for axis in spec]

    devices, found = jax.devices(), {}
    for init, config in (("b0", b0), ("a0", a0)):
        found[init] = {"one": curve(config, "fsdp:1", devices[:1])}
        for text in MESHES if init == "b0" else MESHES[:1]:
            found[init][text] = curve(config, text, devices)
        for name, order in (("plain", range(8)), ("back", range(7, -1, -1)), ("mixed", (3, 6, 0, 5, 1, 7, 2, 4))):
            found[init][name] = curve(config, SPLIT, [devices[place] for place in order])
    print(json.dumps(found))


@pytest.mark.slow
def test_a_mesh_and_the_order_of_its_devices_do_not_matter():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"  # compiles in half the time
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for init, curves in found.items():
        wanted, _ = curves["one"]
        assert wanted[-1] < wanted[0] - 0.05, init
        for mesh, (losses, _) in curves.items():
            np.testing.assert_allclose(losses, wanted, atol=1e-5, rtol=0, err_msg=f"{init} {mesh}")
        for order in ("back", "mixed"):
            np.testing.assert_allclose(
                curves[order][0], curves["plain"][0], atol=1e-4, rtol=0, err_msg=f"{init} {order}"
            )
    assert found["b0"]["fsdp:4,tensor:2"][1] == ["None", "fsdp", "None"]


if __name__ == "__main__":
    _curves()
