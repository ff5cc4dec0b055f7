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


def all_columns(tokens):
    rng = np.random.default_rng(1)
    return {
        "tokens": tokens,
        "segments": rng.integers(0, 5, tokens.shape, np.int32),
        "mask": rng.random(tokens.shape) < 0.5,
        "scores": rng.normal(size=tokens.shape).astype(np.float32),
        "side": rng.integers(-1, 2, tokens.shape, np.int8),
    }


@pytest.mark.parametrize("shape", [(1, 1), (8, 16), (3, 1000)])
def test_host_and_device_agree(shape):
    on_device = jax.jit(fingerprint_on_device)
    for tokens in (make_tokens(*shape), np.full(shape, 2**31 - 1, np.int32), np.full(shape, -1, np.int32)):
        for columns in ({"tokens": tokens}, all_columns(tokens)):
            assert fingerprint(columns).dtype == on_device(columns).dtype == np.uint32
            assert int(fingerprint(columns)) == int(on_device(columns))


@given(BATCHES, st.data())
def test_one_changed_token_changes_it(tokens, data):
    row, column = (data.draw(st.integers(0, size - 1)) for size in tokens.shape)
    other = tokens.copy()
    other[row, column] = (int(other[row, column]) + data.draw(st.integers(1, 2**31 - 1))) % 2**31
    assert fingerprint({"tokens": other}) != fingerprint({"tokens": tokens})


def test_swapped_rows_and_columns_change_it():
    tokens = make_tokens()
    original = fingerprint({"tokens": tokens})
    rows = {int(fingerprint({"tokens": _swapped(tokens, a, b)})) for a in range(8) for b in range(a)}
    columns = {int(fingerprint({"tokens": _swapped(tokens.T, a, b).T})) for a in range(16) for b in range(a)}
    assert original not in rows | columns
    assert len(rows) == 28
    assert len(columns) == 120


def test_hosts_add_up():
    for columns in ({"tokens": make_tokens()}, all_columns(make_tokens())):
        parts = []
        for first in range(0, 8, 2):
            slices = {name: column[first : first + 2] for name, column in columns.items()}
            parts.append(int(fingerprint(slices, first)))
        assert sum(parts) % 2**32 == int(fingerprint(columns))


def test_rows_of_text_are_known_by_their_tokens():
    tokens = make_tokens()
    columns = {"tokens": tokens, "segments": all_columns(tokens)["segments"]}
    assert fingerprint(columns) == fingerprint({"tokens": tokens})


@pytest.mark.parametrize("name", ["tokens", "segments", "mask", "scores", "side"])
def test_a_change_in_any_column_changes_it(name):
    columns = all_columns(make_tokens())
    found = {int(fingerprint(columns))}
    for row, place in ((0, 0), (3, 7), (7, 15)):
        changed = columns[name].copy()
        changed[row, place] = not changed[row, place] if name == "mask" else changed[row, place] + 1
        found.add(int(fingerprint(columns | {name: changed})))
    assert len(found) == 4


def test_the_same_values_in_another_column_are_another_batch():
    tokens, values = make_tokens(), np.ones((8, 16), np.int8)
    assert len({int(fingerprint({"tokens": tokens, name: values})) for name in ("mask", "side", "scores")}) == 3


def test_value_is_frozen():
    """Logged fingerprints are compared across versions: a change of the hash is a change of the format."""
    assert int(fingerprint({"tokens": np.arange(12, dtype=np.int32).reshape(3, 4)})) == 1_842_084_119


def test_sharded_over_devices():
    program = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from alignpre_jax.mixture import fingerprint, fingerprint_on_device
tokens = np.random.default_rng(0).integers(0, 50_304, (8, 16), dtype=np.int32)
for spec, shape in ((("data", None), (4, 1)), (("data", "tensor"), (2, 2)), ((None, "tensor"), (1, 4))):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), ("data", "tensor"))
    whole = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(*spec)))
    assert int(jax.jit(fingerprint_on_device)({"tokens": whole})) == int(fingerprint({"tokens": tokens})), spec
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
