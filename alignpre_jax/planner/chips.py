"""TPU chips: what one of them can do, and how the compiler's names describe slices of them.

Figures are those of the public pages at https://docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} (table
"key specifications") unless a comment says otherwise. Derived figures:

`clock`: a chip's cycles per second are peak FLOP/s over the FLOPs per cycle of its matrix units (a 128 x 128 unit
does 2 x 128 x 128). The unit counts are the documented ones; for v6e and 7x, whose documented units would need an
implausible clock, FLOPs per cycle are 4 x 2 x 256 x 256 per TensorCore, the power of two next above what the TPU
compiler estimates for a large matrix product (437,000 on v6e, 464,000 on 7x; on v4, v5e and v5p its estimates reach
96% of the documented units).

`usable_hbm`: what the compiler lets a program use, from its own message about a program that is too large
(libtpu 0.0.42); the rest is reserved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from alignpre_jax.foundation import UserError, accelerators, suggest

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip; `devices` says as how many JAX devices it shows, and the compiler's figures are per device.

    Attributes:
      hbm: bytes of memory.
      usable_hbm: bytes that a program may use, per device.
      peak_flops: dense bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that all links together can receive (half of the "bidirectional" figure).
      dcn_bandwidth: bytes/s to other slices; 0 where the pages give no figure.
      flops_per_cycle: of the matrix units.
      matrix_unit: edge of a matrix unit; shorter contractions leave a part of it idle.
      options: what `jax.experimental.topologies.get_topology_desc` must be told beyond the name.
    """

    hbm: int
    usable_hbm: float
    peak_flops: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float
    flops_per_cycle: int
    matrix_unit: int
    devices: int = 1
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def clock(self) -> float:
        """Cycles per second, derived; see the top of the file."""
        return self.peak_flops / self.flops_per_cycle


CHIPS: dict[str, Chip] = {
    # ICI: 6 links of 50 GB/s each way (Jouppi et al. 2023, arXiv 2304.01433, table 4). The two TensorCores of a chip
    # are one device in the "megacore" configuration, which is how TPU VMs present them.
    "v4": Chip(
        hbm=32 * GIB,
        usable_hbm=30.75 * GIB,
        peak_flops=275e12,
        hbm_bandwidth=1200e9,
        ici_bandwidth=300e9,
        dcn_bandwidth=0.0,
        flops_per_cycle=8 * 2 * 128 * 128,
        matrix_unit=128,
        options={"chip_config_name": "megacore"},
    ),
    # ICI: 400 GBps bidirectional. DCN: 6.4 Tbps per pod of 256 chips.
    "v5e": Chip(
        hbm=16 * GIB,
        usable_hbm=15.75 * GIB,
        peak_flops=197e12,
        hbm_bandwidth=819e9,
        ici_bandwidth=200e9,
        dcn_bandwidth=6.4e12 / 256 / 8,
        flops_per_cycle=4 * 2 * 128 * 128,
        matrix_unit=128,
    ),
    # ICI: 1200 GBps bidirectional. DCN: 50 Gbps per chip. Two TensorCores, one device.
    "v5p": Chip(
        hbm=95 * GIB,
        usable_hbm=95.73 * GIB,
        peak_flops=459e12,
        hbm_bandwidth=2765e9,
        ici_bandwidth=600e9,
        dcn_bandwidth=50e9 / 8,
        flops_per_cycle=8 * 2 * 128 * 128,
        matrix_unit=128,
    ),
    # ICI: 800 GBps bidirectional. DCN: 100 Gbps per chip.
    "v6e": Chip(
        hbm=32 * GIB,
        usable_hbm=31.24 * GIB,
        peak_flops=918e12,
        hbm_bandwidth=1638e9,
        ici_bandwidth=400e9,
        dcn_bandwidth=100e9 / 8,
        flops_per_cycle=4 * 2 * 256 * 256,
        matrix_unit=256,
    ),
    # ICI: 1200 GBps bidirectional. DCN: 100 Gbps per chip. Two chiplets, two devices.
    "tpu7x": Chip(
        hbm=192 * GIB,
        usable_hbm=94.74 * GIB,
        peak_flops=2307e12,
        hbm_bandwidth=7380e9,
        ici_bandwidth=600e9,
        dcn_bandwidth=100e9 / 8,
        flops_per_cycle=2 * 4 * 2 * 256 * 256,
        matrix_unit=256,
        devices=2,
    ),
}
ALIASES = {"7x": "tpu7x", "v5litepod": "v5e"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape: `name` is the compiler's ("v5e:4x4"), `slices` of them are joined by DCN."""

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The chip it is made of."""
        return CHIPS[self.kind]

    @property
    def name(self) -> str:
        """KIND:SHAPE, as the compiler and the command line write it."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """In all slices together."""
        return self.slices * math.prod(self.shape)


def parse_topology(text: str, slices: int = 1) -> Topology:
    """From "v5e:4x4" or "7x:2x2x1", or from the type of a slice, "v5litepod-16".

    Raises:
      UserError: an unknown chip, or a shape that is not NxM or NxMxK.
    """
    text = text.strip()
    if text in accelerators():
        text = f"{accelerators()[text].chip}:{accelerators()[text].topology}"
    kind, _, shape = text.partition(":")
    kind = ALIASES.get(kind, kind)
    if kind not in CHIPS:
        raise UserError(f"no TPU is called {kind!r}", where="--topology", fix=suggest(kind, CHIPS))
    sizes = shape.split("x")
    if len(sizes) not in (2, 3) or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise UserError(f"{text!r} has no shape", where="--topology", fix=f"give e.g. {kind}:4x4 or {kind}:4x4x4")
    if slices < 1:
        raise UserError(f"{slices} slices", where="--slices", fix="give 1 or more")
    return Topology(kind, tuple(map(int, sizes)), slices)
