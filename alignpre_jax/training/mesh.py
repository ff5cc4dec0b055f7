"""The device mesh of a run, from a line such as `data:2,fsdp:-1`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model import make_mesh

MESH_AXES = ("data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("data", "fsdp")  # a batch's rows are spread over these


def parse_mesh(text: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with all of `MESH_AXES`; axes that are not named have size 1.

    Args:
      text: comma-separated AXIS:SIZE; one size may be -1 and takes the devices that are left.
      devices: default all of `jax.devices()`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in filter(None, text.replace(" ", "").split(",")):
        axis, _, size = part.partition(":")
        if axis not in sizes:
            raise UserError(f"no mesh axis {axis!r}", where="training.mesh", fix=suggest(axis, sizes))
        if not size.lstrip("-").isdigit() or (int(size) < 1 and int(size) != -1):
            raise UserError(f"{part!r} is not AXIS:SIZE", where="training.mesh", fix="give e.g. data:2,fsdp:-1")
        sizes[axis] = int(size)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size > 0)
    if len(open_axes) > 1 or len(devices) % fixed or (not open_axes and fixed != len(devices)):
        raise UserError(
            f"the mesh {text!r} does not fit {len(devices)} device(s)",
            where="training.mesh",
            fix="make the sizes multiply to the number of devices, or give one axis the size -1",
        )
    if open_axes:
        sizes[open_axes[0]] = len(devices) // fixed
    return make_mesh(sizes, devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data and fsdp axes, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(mesh: Mesh, batch_rows: int) -> None:
    """A global batch must divide evenly over the mesh's batch axes."""
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_rows % shards:
        raise UserError(
            f"a batch of {batch_rows} rows does not divide over {shards} shards",
            where="stages.STAGE.batch_rows and training.mesh",
            fix=f"make batch_rows a multiple of {shards}",
        )
