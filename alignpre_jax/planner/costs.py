"""Adds up what a compiled program costs on one device: cycles by kind, matrix FLOPs, custom kernels, collectives."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from alignpre_jax.planner.program import Array, Computation, Executed, Instruction, Module

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_MATMULS = ("convolution", "dot")
_COPIES = ("copy", "copy-start", "slice-start", "transpose", "bitcast", "parameter", "tuple", "reshape")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
_IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A custom kernel (Pallas), for which the compiler gives no estimate. Shapes are per device."""

    name: str
    operands: tuple[Array, ...]
    results: tuple[Array, ...]
    times: int
    metadata: str  # what the kernel says about itself

    @property
    def bytes(self) -> float:
        """The bytes of one call, in which all operands are read once and all results are written once."""
        return sum(array.bytes for array in (*self.operands, *self.results))


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of the program.

    Attributes:
      kind: one of COLLECTIVES.
      bytes: how many bytes one device receives in one call, by the usual ring algorithms.
      devices: how many devices a group has.
      times: calls per step.
      overlapped: whether it is scheduled beside computation.
      between_slices: whether it goes over the data center network instead of the chips' own links.
    """

    kind: str
    bytes: float
    devices: int
    times: int
    overlapped: bool
    between_slices: bool = False


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation that the compiler gives an estimate for, with the cycles and matrix FLOPs of one call, its calls per
    step, and its origin."""

    kind: str
    origin: str
    results: tuple[Array, ...]
    cycles: int
    flops: float
    times: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of one call of the program on one device.

    `cycles` is by kind: matmul, elementwise, copy. `unpriced` counts operations without an estimate that are
    neither kernels nor collectives. `operations` has all that have one, those that take the most cycles first.
    """

    cycles: dict[str, int]
    matmul_flops: float
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    unpriced: dict[str, int]
    operations: tuple[Operation, ...] = ()


def price(module: Module) -> Costs:
    """Adds up the costs of everything that runs."""
    cycles: collections.Counter[str] = collections.Counter()
    unpriced: collections.Counter[str] = collections.Counter()
    kernels: list[Kernel] = []
    exchanges: list[Collective] = []
    operations: list[Operation] = []
    flops = 0.0
    for each in module.executed():
        instruction = each.instruction
        own = sum(
            matmul_flops(part, where)
            for part, where in module.within(instruction, each.inside)
            if part.kind in _MATMULS
        )
        flops += each.times * own
        found = list(collectives(module, each))
        exchanges += found
        if instruction.cycles is not None:
            kind, origin = _kind(module, each), re.sub(r"jit\([^)]*\)/", "", instruction.quoted("op_name"))
            cycles[kind] += instruction.cycles * each.times
            operations.append(Operation(kind, origin, instruction.results, instruction.cycles, own, each.times))
        elif instruction.kind == "custom-call" and instruction.quoted("custom_call_target") == "tpu_custom_call":
            kernels.append(_kernel(each))
        elif not found and instruction.kind in ("fusion", "copy", *_MATMULS):
            unpriced[instruction.kind] += each.times
    operations.sort(key=lambda each: -each.cycles * each.times)
    figures = (tuple(kernels), tuple(exchanges), dict(unpriced), tuple(operations))
    return Costs(dict(cycles), flops, *figures)


def matmul_flops(instruction: Instruction, inside: Computation) -> float:
    """Returns the FLOPs of a dot or convolution, 2 per multiply-add; products with padding are not counted.

    On a TPU most matrix products are written as convolutions, and batch dimensions as spatial ones.
    """
    left, right = inside.operand(instruction, 0), inside.operand(instruction, 1)
    (result,) = instruction.results
    if instruction.kind == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)
        assert contracted is not None, instruction.text
        return 2.0 * math.prod(result.dims) * math.prod(left.dims[int(d)] for d in contracted.group(1).split(",") if d)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    assert labels is not None, instruction.text
    of_left, of_right, of_result = (
        dict(zip(names, array.dims, strict=True))
        for names, array in zip(labels.groups(), (left, right, result), strict=True)
    )
    window = _window(instruction.text)
    taps = math.prod(
        _taps(of_left[d], of_right[d], of_result[d], {key: values[int(d)] for key, values in window.items()})
        for d in of_left
        if d.isdigit()
    )
    return 2.0 * of_result["b"] * of_result["f"] * of_right["i"] * taps


def collectives(module: Module, each: Executed) -> Iterator[Collective]:
    """Yields the collectives that an executed instruction begins.

    An asynchronous collective shows up three times or more: where it starts, in the fusions it runs beside, and where
    it ends. Only the start is reported.
    """
    instruction = each.instruction
    if instruction.kind == "send" and "megascale" in instruction.text:
        kind = instruction.quoted("_xla_megascale_transfer_type").lower().replace("_", "-")
        yield Collective(kind, instruction.results[0].bytes, _slices(instruction), each.times, True, True)
        return
    parts = list(module.within(instruction, each.inside))
    begins = any(part.quoted("custom_call_target") == "AsyncCollectiveStart" for part, _ in parts)
    for part, where in parts:
        kind = part.kind.removesuffix("-start")
        if kind not in COLLECTIVES or ("async_collective_fusion_config" in part.text and not begins):
            continue
        scattered = kind == "all-reduce" and instruction.reference("calls").startswith("all-reduce-scatter")
        kind = "reduce-scatter" if scattered else kind
        group = _group_size(part)
        operands = sum(where.operand(part, i).bytes for i in range(len(part.operands)))
        overlapped = begins or part.kind.endswith("-start")
        yield Collective(kind, _received(kind, operands, group), group, each.times, overlapped)


def _slices(instruction: Instruction) -> int:
    """Returns how many slices an exchange between slices joins: `{1,2}x{0:3}` joins two."""
    found = re.search(r'_xla_megascale_target="\{([\d,]+)\}', instruction.text)
    return len(found.group(1).split(",")) if found else 0


def _received(kind: str, operand_bytes: float, group: int) -> float:
    """Returns the bytes that one of `group` devices receives when each of them brings `operand_bytes`."""
    share = (group - 1) / group
    return (
        operand_bytes
        * {
            "all-gather": group - 1,
            "all-reduce": 2 * share,
            "reduce-scatter": share,
            "all-to-all": share,
            "collective-permute": 1,
        }[kind]
    )


def _group_size(instruction: Instruction) -> int:
    """Returns the devices per group, which is written in one of three ways; a permutation is counted as pairs."""
    if found := _MESH_GROUPS.search(instruction.text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found.group(2)))
    if found := _IOTA_GROUPS.search(instruction.text):
        return int(found.group(2))
    if found := _LISTED_GROUPS.search(instruction.text):
        return len(found.group(1).split(","))
    assert instruction.kind.startswith("collective-permute"), instruction.text
    return 2


def _kind(module: Module, each: Executed) -> str:
    kinds = {part.kind for part, _ in module.within(each.instruction, each.inside)}
    if kinds & set(_MATMULS):
        return "matmul"
    return "copy" if kinds <= {"fusion", "constant", *_COPIES} else "elementwise"


def _kernel(each: Executed) -> Kernel:
    instruction = each.instruction
    operands = tuple(each.inside.operand(instruction, i) for i in range(len(instruction.operands)))
    name = re.sub(r"(\.\d+|\.clone)+$", "", instruction.name)
    metadata = instruction.text.partition("kernel_metadata=")[2].replace("\\", "")
    return Kernel(name, operands, instruction.results, each.times, metadata)


def _window(text: str) -> dict[str, list]:
    """Returns `window={size=1x3 pad=0_0x1_1}` as lists with an entry per spatial dimension."""
    found = re.search(r"window=\{([^}]*)\}", text)
    fields = dict(part.split("=") for part in found.group(1).split()) if found else {}
    rank = len(fields["size"].split("x")) if fields else 0
    window = {key: [int(n) for n in fields[key].split("x")] for key in fields if key not in ("pad", "rhs_reversal")}
    window["pad"] = [int(p.split("_")[0]) for p in fields["pad"].split("x")] if "pad" in fields else [0] * rank
    for key in ("stride", "lhs_dilate", "rhs_dilate"):
        window.setdefault(key, [1] * rank)
    return window


def _taps(size: int, kernel: int, out: int, window: dict[str, int]) -> int:
    """Returns how many pairs of an output place and a kernel place meet an input that exists, along one dimension."""
    places = np.arange(out)[:, None] * window["stride"] + np.arange(kernel) * window["rhs_dilate"] - window["pad"]
    return int(
        np.sum((places >= 0) & (places <= (size - 1) * window["lhs_dilate"]) & (places % window["lhs_dilate"] == 0))
    )
