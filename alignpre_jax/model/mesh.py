"""This module makes the device mesh of a run from a line such as `data:2,fsdp:-1`, and says which host loads which rows
of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.model.sharding import make_mesh

MESH_AXES = ("data", "fsdp", "sequence", "tensor")
BATCH_AXES = ("data", "fsdp")  # a batch's rows are spread over these


def parse_mesh(text: str, devices: Sequence[jax.Device] | None = None, dcn: str = "") -> Mesh:
    """Makes a mesh with all of `MESH_AXES`; axes that `text` does not name have size 1.

    Args:
      text: comma-separated AXIS:SIZE; one size may be -1, and its axis takes the devices that are left. With several
        slices this is the mesh within each slice.
      devices: the devices of the mesh; by default all of `jax.devices()`.
      dcn: the mesh of the slices, written in the same way; the data-center network connects them. By default all
        slices lie along `data`.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    across = _sizes(dcn or f"data:{slices}", slices, "slice(s)", "loop.dcn_mesh")
    within = _sizes(text, len(devices) // slices, "device(s)", "loop.mesh")
    sizes = {axis: across[axis] * within[axis] for axis in MESH_AXES}
    return make_mesh(sizes, arrange(list(within.values()), list(across.values()), devices).ravel().tolist())


def arrange(within: Sequence[int], across: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Arranges devices in a mesh: on TPUs, neighbours in the mesh are neighbours in the torus.

    Other devices keep their order. Every host's rows must stay one stretch of the batch; where the torus would spread
    them, TPU devices keep their order too.
    """
    shape = [a * b for a, b in zip(across, within, strict=True)]
    plain = np.array(devices, dtype=object).reshape(shape)
    if devices[0].platform != "tpu" or len(devices) == 1:
        return plain
    options: dict[str, Any] = {"devices": devices, "allow_split_physical_axes": True}
    if math.prod(across) > 1:
        placed = mesh_utils.create_hybrid_device_mesh(within, across, **options)
    else:
        placed = mesh_utils.create_device_mesh(within, **options)
    try:
        for process in {device.process_index for device in devices}:
            _stretch(placed, process)
    except UserError:
        logging.info("mesh: devices in their own order, because the torus would spread a host's rows over the batch")
        return plain
    return placed


def host_part(mesh: Mesh) -> tuple[int, int]:
    """Returns (which part of the batch's rows this host loads, of how many equal parts). Hosts may share a part.

    Raises:
      UserError: the host's devices do not hold one stretch of the batch.
    """
    return _stretch(mesh.devices, jax.process_index())


def _stretch(devices: np.ndarray, process: int) -> tuple[int, int]:
    shards = math.prod(devices.shape[: len(BATCH_AXES)])
    hosts = np.array([device.process_index for device in devices.flat]).reshape(shards, -1)
    own = np.flatnonzero((hosts == process).any(axis=1))
    if shards % len(own) or own[0] % len(own) or own[-1] - own[0] != len(own) - 1:
        raise UserError(
            f"process {process} has the parts {own.tolist()} of a batch in {shards} parts: not one stretch of it",
            where="loop.mesh",
            fix="make data x fsdp a multiple of the number of hosts, or a divisor of it",
        )
    return int(own[0]) // len(own), shards // len(own)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: rows are split over the data and fsdp axes, and everything else is whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(mesh: Mesh, batch_rows: int, row_length: int) -> None:
    """Checks that a global batch divides evenly over the mesh's batch axes, and a row over its sequence axis."""
    shards, parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES), mesh.shape["sequence"]
    if batch_rows % shards:
        raise UserError(
            f"a batch of {batch_rows} rows does not divide over {shards} shards",
            where="stages.STAGE.batch_rows and loop.mesh",
            fix=f"make batch_rows a multiple of {shards}",
        )
    if row_length % parts:
        raise UserError(
            f"rows of {row_length} tokens do not divide into {parts} parts",
            where="stages.STAGE.rows.length and loop.mesh",
            fix=f"make rows.length a multiple of {parts}, or the axis `sequence` smaller",
        )


def _sizes(text: str, count: int, what: str, where: str) -> dict[str, int]:
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in filter(None, text.replace(" ", "").split(",")):
        axis, _, size = part.partition(":")
        if axis not in sizes:
            raise UserError(f"no mesh axis {axis!r}", where=where, fix=suggest(axis, sizes))
        if not size.lstrip("-").isdigit() or (int(size) < 1 and int(size) != -1):
            raise UserError(f"{part!r} is not AXIS:SIZE", where=where, fix="give e.g. data:2,fsdp:-1")
        sizes[axis] = int(size)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size > 0)
    if len(open_axes) > 1 or count % fixed or (not open_axes and fixed != count):
        raise UserError(
            f"the mesh {text!r} does not fit {count} {what}",
            where=where,
            fix=f"make the sizes multiply to {count}, or give one axis the size -1",
        )
    if open_axes:
        sizes[open_axes[0]] = count // fixed
    return sizes
