"""This table says what one chip can do at best; the planner, the MFU of a run and the benches all read it.

The figures of TPUs are those of the public pages at https://docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}
(table "key specifications") unless a comment says otherwise. These figures are derived:

`clock`: a chip's cycles per second are peak FLOP/s over the FLOPs per cycle of its matrix units (a 128 x 128 unit
does 2 x 128 x 128). The unit counts are the documented ones; for v6e and 7x, whose documented units would need an
implausible clock, FLOPs per cycle are 4 x 2 x 256 x 256 per TensorCore, the power of two next above what the TPU
compiler estimates for a large matrix product (437,000 on v6e, 464,000 on 7x; on v4, v5e and v5p its estimates reach
96% of the documented units).

`usable_hbm`: the bytes that the compiler lets a program use, as its own message about a program that is too large
says (libtpu 0.0.42); the rest is reserved.

The figures of GPUs are those of their makers, for dense matrices without sparsity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """The figures of one chip. JAX shows it as `devices` devices, and the compiler's figures are per device.

    Attributes:
      hbm: bytes of memory of the whole chip.
      usable_hbm: bytes that a program may use, per device.
      peak_flops: dense bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that all links together can receive (half of the "bidirectional" figure).
      dcn_bandwidth: bytes/s to other slices; 0 where the pages give no figure.
      flops_per_cycle: FLOPs per cycle of all its matrix units together.
      matrix_unit: edge of a matrix unit; shorter contractions leave a part of it idle.
      devices: the number of JAX devices that the chip shows as.
      options: the arguments that `jax.experimental.topologies.get_topology_desc` needs beyond the name.
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
        """The cycles per second, derived from the other figures as the top of the file says."""
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

# Dense bfloat16 FLOP/s of one device, by the beginning of the name that JAX shows it under. Where a TPU chip is several
# devices, its FLOP/s are divided among them.
PEAK_FLOPS: dict[str, float] = {
    "TPU v4": CHIPS["v4"].peak_flops,
    "TPU v5 lite": CHIPS["v5e"].peak_flops,
    "TPU v5e": CHIPS["v5e"].peak_flops,
    "TPU v5": CHIPS["v5p"].peak_flops,
    "TPU v5p": CHIPS["v5p"].peak_flops,
    "TPU v6 lite": CHIPS["v6e"].peak_flops,
    "TPU v6e": CHIPS["v6e"].peak_flops,
    "TPU7x": CHIPS["tpu7x"].peak_flops / CHIPS["tpu7x"].devices,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float:
    """Returns the dense bfloat16 FLOP/s of one device, or 0 if the table does not have it.

    The longest name that `device_kind` begins with counts, so that a "TPU v5 lite" is not taken for a "TPU v5".
    """
    found = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(found, key=len)] if found else 0.0
