import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignpre_jax.mixture import fingerprint, fingerprint_on_device

BATCHES = hnp.arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 2**31 - 1))


def make_tokens(rows=8, length=16):
    return np.random.default_rng(0).integers(0, 50_304, (rows, length), dtype=np.int32)


@pytest.mark.parametrize("shape", [(1, 1), (8, 16), (3, 1000)])
def test_host_and_device_agree(shape):
    on_device = jax.jit(fingerprint_on_device)
    for tokens in (make_tokens(*shape), np.full(shape, 2**31 - 1, np.int32), np.full(shape, -1, np.int32)):
        assert fingerprint(tokens).dtype == on_device(tokens).dtype == np.uint32
        assert int(fingerprint(tokens)) == int(on_device(tokens))


@given(BATCHES, st.data())
def test_one_changed_token_changes_it(tokens, data):
    row, column = (data.draw(st.integers(0, size - 1)) for size in tokens.shape)
    other = tokens.copy()
    other[row, column] = (int(other[row, column]) + data.draw(st.integers(1, 2**31 - 1))) % 2**31
    assert fingerprint(other) != fingerprint(tokens)


def test_swapped_rows_and_columns_change_it():
    tokens = make_tokens()
    original = fingerprint(tokens)
    rows = {int(fingerprint(_swapped(tokens, a, b))) for a in range(8) for b in range(a)}
    columns = {int(fingerprint(_swapped(tokens.T, a, b).T)) for a in range(16) for b in range(a)}
    assert original not in rows | columns
    assert len(rows) == 28
    assert len(columns) == 120


def test_hosts_add_up():
    tokens = make_tokens()
    parts = [int(fingerprint(tokens[first : first + 2], first)) for first in range(0, 8, 2)]
    assert sum(parts) % 2**32 == int(fingerprint(tokens))


def test_value_is_frozen():
    """Logged fingerprints are compared across versions: a change of the hash is a change of the format."""
    assert int(fingerprint(np.arange(12, dtype=np.int32).reshape(3, 4))) == 1_842_084_119


def test_sharded_over_devices():
    program = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from alignpre_jax.mixture import fingerprint, fingerprint_on_device
tokens = np.random.default_rng(0).integers(0, 50_304, (8, 16), dtype=np.int32)
for spec, shape in ((("data", None), (4, 1)), (("data", "tensor"), (2, 2)), ((None, "tensor"), (1, 4))):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), ("data", "tensor"))
    whole = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(*spec)))
    assert int(jax.jit(fingerprint_on_device)(whole)) == int(fingerprint(tokens)), spec
"""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def _swapped(tokens: np.ndarray, a: int, b: int) -> np.ndarray:
    other = tokens.copy()
    other[[a, b]] = other[[b, a]]
    return other
