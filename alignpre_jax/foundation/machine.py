"""This module says what hardware this machine has, without waking JAX."""

from __future__ import annotations

import os
from pathlib import Path


def accelerator_present() -> bool:
    """Returns whether there is a GPU or TPU device file; the answer is no if JAX_PLATFORMS puts the CPU first.

    JAX itself is not asked, because it would take hold of the device.
    """
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0"))


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
