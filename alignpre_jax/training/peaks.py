"""What a device can do at best, by the name that JAX shows it under: dense bfloat16 FLOP/s.

TPU figures are per JAX device, from the public pages at https://docs.cloud.google.com/tpu/docs (table "key
specifications"; a 7x chip shows two devices). GPU figures are the makers' for dense matrices without sparsity.
"""

from __future__ import annotations

PEAK_FLOPS: dict[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float:
    """Of one device: that of the longest entry which `device_kind` begins with; 0 where there is none."""
    found = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(found, key=len)] if found else 0.0
