"""This module maps logical axis names to mesh axes by ordered tables, in which the first match wins.

The mesh axes are "data" (splits rows; parameters are copied), "fsdp" (splits rows; parameters are split, and gathered
for use), "sequence" (splits each row; keys and values are gathered for attention, parameters are split as by fsdp) and
"tensor" (splits heads, MLP and vocabulary). A mesh may lack any of them. Two tables are the whole of FSDP: how a
parameter is stored (STORAGE), and how an activation is laid out while computing (COMPUTE).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alignpre_jax.foundation import UserError
from alignpre_jax.model.config import DecoderConfig
from alignpre_jax.model.parameters import Extra, parameters
from alignpre_jax.model.trees import nest

Rules = tuple[tuple[str, tuple[str, ...]], ...]

# logical axis of a parameter -> the mesh axes that split it in memory
STORAGE: Rules = (
    ("vocab", ("tensor",)),
    ("embed", ("fsdp", "sequence")),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("mlp", ("tensor",)),
    ("head_dim", ()),
    ("layers", ()),
    ("rank", ()),
    ("norm", ()),
)
# logical axis of an activation -> the mesh axes that split the work
COMPUTE: Rules = (
    ("batch", ("data", "fsdp")),
    ("length", ("sequence",)),
    ("tokens", ("sequence", "data", "fsdp")),  # rows and positions in one axis, as `flatten` orders them
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("mlp", ("tensor",)),
    ("vocab", ("tensor",)),
)

_GATHERED: Rules = tuple((axis, () if axis == "embed" else mesh) for axis, mesh in STORAGE)  # while in use


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh in row-major order over `devices` (default: all), e.g. `{"data": 2, "fsdp": 4}`.

    Its axes are of the type Auto: the compiler places what is not constrained.
    """
    devices = jax.devices() if devices is None else devices
    if math.prod(axes.values()) != len(devices):
        raise UserError(
            f"a mesh of {dict(axes)} needs {math.prod(axes.values())} devices, and there are {len(devices)}",
            where="mesh",
            fix="make the product of the mesh axes the number of devices",
        )
    grid = np.asarray(devices).reshape(tuple(axes.values()))
    return Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def mesh_axes() -> dict[str, int]:
    """Returns the sizes of the axes of the mesh in force (`jax.set_mesh`), or {} without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return {} if mesh.empty else dict(mesh.shape)


def platform() -> str:
    """Returns the platform, "cpu", "gpu" or "tpu", of the mesh in force or, without one, of the default device.

    The mesh may be one that only describes devices.
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return getattr(device, "platform", None) or jax.default_backend()


def partition(axes: Sequence[str | None], shape: Sequence[int], sizes: Mapping[str, int], rules: Rules, name: str) -> P:
    """Returns the partition of one tensor over a mesh with axis `sizes`; an axis that is None is never split.

    Raises:
      UserError: two of the tensor's axes want the same mesh axis, or a mesh axis does not divide one of them; the error
        names the tensor.
    """
    entries: list[tuple[str, ...]] = []
    for axis, size in zip(axes, shape, strict=True):
        split = next((mesh for logical, mesh in rules if logical == axis), None) if axis else ()
        assert split is not None, f"no rule for logical axis {axis!r} of {name}"
        split = tuple(mesh for mesh in split if sizes.get(mesh, 1) > 1)
        taken = [mesh for mesh in split if any(mesh in entry for entry in entries)]
        if taken:
            raise UserError(
                f"two axes of {name} {tuple(axes)} are both split over mesh axis {taken[0]!r}",
                where="sharding rules",
                fix="send one of the two to another mesh axis",
            )
        ways = math.prod(sizes[mesh] for mesh in split)
        if size % ways:
            raise UserError(
                f"axis {axis!r} of {name} has size {size}, which mesh axes {'*'.join(split)}={ways} do not divide",
                where="mesh",
                fix=f"choose a mesh whose {'*'.join(split)} divides {size}",
            )
        entries.append(split)
    return P(*(entry if len(entry) > 1 else entry[0] if entry else None for entry in entries))


def compute_spec(axes: Sequence[str | None], shape: Sequence[int], name: str) -> P:
    """Returns the partition of an activation on the mesh in force; see `partition`."""
    return partition(axes, shape, mesh_axes(), COMPUTE, name)


def constrain(x: jax.Array, axes: Sequence[str | None], name: str) -> jax.Array:
    """Lays an activation out as COMPUTE says; without a mesh, it returns `x` itself."""
    return jax.lax.with_sharding_constraint(x, compute_spec(axes, x.shape, name)) if mesh_axes() else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def gathered(w: jax.Array, axes: tuple[str, ...], dtype: str, name: str) -> jax.Array:
    """Returns a stored parameter as it is computed with: in `dtype`, and whole but for the axes that split the work.

    These are FSDP's two exchanges, stated outright: an all-gather in `dtype` and, for the gradient, a reduce-scatter in
    `dtype`. Left to itself, the compiler may gather float32, or add up whole gradients on every device.
    """
    stored, used = (partition(axes, w.shape, mesh_axes(), rules, name) for rules in (STORAGE, _GATHERED))
    w = jax.lax.with_sharding_constraint(w.astype(dtype), stored)
    return jax.lax.with_sharding_constraint(w, used)


def _gathered_forward(w, axes, dtype, name):
    return gathered(w, axes, dtype, name), jnp.empty((0,), w.dtype)


def _gathered_backward(axes, dtype, name, like, gradient):
    stored = partition(axes, gradient.shape, mesh_axes(), STORAGE, name)
    return (jax.lax.with_sharding_constraint(gradient.astype(dtype), stored).astype(like.dtype),)


gathered.defvjp(_gathered_forward, _gathered_backward)


def token_groups() -> int:
    """Returns among how many devices, or groups of devices, the mesh in force splits tokens."""
    return math.prod(mesh_axes().get(axis, 1) for axis in dict(COMPUTE)["tokens"])


def splits_parameters() -> bool:
    """Returns whether the mesh in force stores parameters in parts that are whole in the computation."""
    return any(mesh_axes().get(axis, 1) > 1 for axis in ("fsdp", "sequence"))


def flatten(x_BL: jax.Array) -> jax.Array:
    """Flattens [B, L, ...] to [S, ...], in the order of the axis "tokens": parts of a row, then rows, then positions.

    The parts are those that the mesh axis "sequence" splits a row into. In this order the tokens that a device has are
    one stretch of S, and stay on that device.

    Raises:
      UserError: the length of the rows does not divide into the parts.
    """
    parts, (rows, length, *rest) = mesh_axes().get("sequence", 1), x_BL.shape
    if parts > 1:
        if length % parts:
            raise UserError(
                f"rows of {length} tokens do not divide into {parts} parts",
                where="loop.mesh and stages.STAGE.rows.length",
                fix=f"choose a mesh whose sequence axis divides {length}",
            )
        x_BL = x_BL.reshape(rows, parts, length // parts, *rest).swapaxes(0, 1)
    return x_BL.reshape(rows * length, *rest)


def unflatten(x_S: jax.Array, rows: int) -> jax.Array:
    """Inverts `flatten`: [S, ...] -> [B, L, ...]."""
    parts, rest = mesh_axes().get("sequence", 1), x_S.shape[1:]
    if parts > 1:
        x_S = x_S.reshape(parts, rows, -1, *rest).swapaxes(0, 1)
    return x_S.reshape(rows, -1, *rest)


def logical_axes(config: DecoderConfig) -> nnx.State:
    """Returns the axis names of every parameter: a tree like that of the parameters, with tuples as leaves."""
    return nest({name: parameter.axes for name, parameter in parameters(config).items()})


def param_shardings(config: DecoderConfig, mesh: Mesh | AbstractMesh, rules: Rules = STORAGE) -> nnx.State:
    """Returns the `NamedSharding` in which each parameter is stored: a tree like that of the parameters."""
    return nest(shardings_by_path(config, mesh, rules=rules))


def shardings_by_path(
    config: DecoderConfig, mesh: Mesh | AbstractMesh, extras: Sequence[Extra] = (), rules: Rules = STORAGE
) -> dict[str, NamedSharding]:
    """Returns the `NamedSharding` of each parameter by path, such as "blocks.q", with the parameters of `extras`."""
    sizes = dict(mesh.shape)
    return {
        name: NamedSharding(mesh, partition(parameter.axes, parameter.shape, sizes, rules, name))
        for name, parameter in parameters(config, extras).items()
    }
