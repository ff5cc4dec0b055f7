"""Compiles programs for TPUs that are only described, with the compiler inside libtpu. Runs in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from alignpre_jax.foundation import UserError, build
from alignpre_jax.mixture import Batch
from alignpre_jax.mixture.loader import DTYPES
from alignpre_jax.model import parse_mesh
from alignpre_jax.model.mesh import check_batch
from alignpre_jax.planner.allocations import UNITS, Buffer
from alignpre_jax.planner.topology import Topology
from alignpre_jax.training import StepConfig, make_train_step

# Without these libtpu looks for the TPU machine it runs on, waits for a metadata server, and lets no second process in.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
}
_LARGEST = 12  # how many of the largest tensors are reported
_SIZE = r"([\d.]+)([BKMGT])"
_TOO_LARGE = (
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
)


@dataclasses.dataclass(frozen=True)
class Memory:
    """The bytes of HBM that a program takes on one device.

    The state is donated, so outputs that replace arguments take no room of their own.

    Attributes:
      arguments: what the program is given; it stays for the whole step.
      new_outputs: the outputs that replace no argument.
      temporaries: the compiler's `temp_size`, which may count too much; see `planner.allocations`.
      code: the program's code.
      allocated: everything but the code, by the compiler's report; None where it wrote no report.
    """

    arguments: float
    new_outputs: float
    temporaries: float
    code: float
    allocated: float | None = None

    @property
    def needed(self) -> float:
        """The bytes that the program takes in all."""
        return self.sum if self.allocated is None else self.allocated + self.code

    @property
    def sum(self) -> float:
        """The sizes added up, as other tools report them, which is never less than what the program takes."""
        return self.arguments + self.new_outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An argument of the program: its bytes on one device, and the mesh axes that split its dimensions."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sharding: str
    bytes: float


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program that fits; `tensors` are its largest arguments, `groups` the bytes of all by what they are, `buffers`
    its largest temporaries."""

    text: str
    memory: Memory
    tensors: tuple[Tensor, ...] = ()
    groups: Mapping[str, float] = dataclasses.field(default_factory=dict)
    buffers: tuple[Buffer, ...] = ()


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A program that the compiler could not fit, in its own figures (bytes per device)."""

    needed: float
    available: float


def describe_devices(topology: Topology) -> Sequence[jax.Device]:
    """Returns devices that can be compiled for, but not computed on.

    Raises:
      UserError: libtpu is not installed, or the compiler knows no slice of this shape.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("planning needs the TPU compiler", where="libtpu", fix="pip install 'alignpre_jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = dict(topology.chip.options)
    if topology.slices > 1:
        options["num_slices"] = topology.slices  # type: ignore[assignment]
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the TPU compiler cannot describe {topology.name}: {reason}",
            where="--topology",
            fix="give a shape that can be booked, such as v5e:4x4, v6e:16x16, v5p:4x4x8",
        ) from None


def train_step(arguments: Mapping[str, Any], topology: Topology) -> Compiled | TooLarge:
    """Calls `compile_step` with plain data; the compiler's own process enters here."""
    step = build(StepConfig, arguments["step"], "step")
    return compile_step(step, arguments["mesh"], arguments["batch_rows"], arguments["row_length"], topology)


def compile_step(
    step: StepConfig, mesh: str, batch_rows: int, row_length: int, topology: Topology
) -> Compiled | TooLarge:
    """Compiles the same jitted function, with the same shardings and kernels, as the training loop runs.

    Raises:
      UserError: see `describe_devices`; also a mesh that does not fit the devices, the batch or the model.
    """
    devices = parse_mesh(mesh, describe_devices(topology))
    check_batch(devices, batch_rows, row_length)
    made = make_train_step(step, devices)

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=made.batch)

    columns = {name: array(DTYPES[name], batch_rows, row_length) for name in step.objective.reads}
    batch = Batch(columns, array(jnp.int32, batch_rows))
    with jax.set_mesh(devices):
        state, fixed = made.abstract()
        lowered = made.run.lower(state, fixed, batch)  # type: ignore[attr-defined]
        return finish(lowered, {"state": state, "fixed": fixed, "batch": batch})


def finish(lowered: Any, arguments: Any) -> Compiled | TooLarge:
    """Compiles what was lowered; that a program does not fit is a result, not an error."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        too_large = read_too_large(str(error))
        if too_large is None:
            raise
        return too_large
    return read_compiled(compiled, arguments)


def read_compiled(compiled: Any, arguments: Any) -> Compiled:
    """Returns the text, the memory and the largest arguments of what the compiler made."""
    stats = compiled.memory_analysis()
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        new_outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )
    tensors = [_tensor(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(arguments)]
    groups: dict[str, float] = {}
    for tensor in tensors:
        parts = tensor.name.split(".")
        group = parts[1] if parts[0] == "state" and len(parts) > 1 else parts[0]
        groups[group] = groups.get(group, 0.0) + tensor.bytes
    largest = sorted(tensors, key=lambda tensor: -tensor.bytes)[:_LARGEST]
    return Compiled(compiled.as_text(), memory, tuple(largest), groups)


def _tensor(path: Any, leaf: Any) -> Tensor:
    sharding = getattr(leaf, "sharding", None)
    local = sharding.shard_shape(leaf.shape) if sharding else leaf.shape
    itemsize = 4 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.dtype(leaf.dtype).itemsize
    name = ".".join(re.findall(r"\w+", jax.tree_util.keystr(path))).removesuffix(".value")
    spec = ", ".join(map(str, getattr(sharding, "spec", ())))
    return Tensor(name, tuple(leaf.shape), str(leaf.dtype), spec, float(math.prod(local) * itemsize))


def read_too_large(message: str) -> TooLarge | None:
    """Returns the sizes in the compiler's message about a program that does not fit; None for any other message."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(message):
            needed, needed_unit, available, available_unit = found.groups()
            return TooLarge(float(needed) * UNITS[needed_unit], float(available) * UNITS[available_unit])
    return None
