"""An import needs little more host memory than the parameters on its own devices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory in use from /proc"),
]

CODE = """
import json, sys, threading, time
import jax
from alignpre_jax.model import DecoderConfig, init_params, make_mesh
from alignpre_jax.model.hf import export_model, import_model
from alignpre_jax.model.presets import get_preset
import dataclasses

folder, act = sys.argv[1:]
config = dataclasses.replace(get_preset("smollm2_135m"), vocab_size=4096, layers=24, dtype="float32")
if act == "export":
    export_model(folder, init_params(config, 0), config, {}, eot="<|endoftext|>", eot_id=0, dtype="float32")
    sys.exit()

def in_use():  # anonymous memory: pages of the mapped file can be dropped at any time
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(8))())
before, peak, ended = in_use(), 0, False

def watch():
    global peak
    while not ended:
        peak = max(peak, in_use())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
model = import_model(folder, mesh)
jax.block_until_ready(model.params)
ended = True
thread.join()
leaves = jax.tree.leaves(model.params)
print(json.dumps({"params": sum(leaf.nbytes for leaf in leaves), "stack": max(leaf.nbytes for leaf in leaves),
                  "above": peak - before}))
"""


def test_an_import_holds_the_parameters_and_one_tensor(tmp_path):
    def run(act):
        done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path), act], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("export")
    found = json.loads(run("import"))
    assert found["params"] > 250_000_000
    # Compiling the programs that fill the stacks takes some megabytes of its own, whatever the model's size.
    assert found["above"] - found["params"] < 60_000_000
