"""This module lists the TPU slices that can be booked: one table for the planner, the launcher and the scripts in gcp/.

The table itself is the file `accelerators.tsv`, so that a shell script can read the same lines. Sources: the pages
https://docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} (types and topologies), .../runtimes (runtime versions)
and https://docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (machine types and labels of GKE nodes).
"""

from __future__ import annotations

import dataclasses
import functools
from importlib import resources

from alignpre_jax.foundation.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A TPU slice that can be booked: one line of `accelerators.tsv`.

    Attributes:
      type: Google Cloud's name, "v5litepod-16". The number counts cores on v4, v5p and 7x, chips on v5e and v6e.
      chip: the planner's name of the chip, "v5e".
      chips: the number of chips in the slice.
      hosts: the number of machines that the chips are attached to; the same command runs on each machine.
      topology: how the chips are connected, "4x4".
      runtime: the version of the TPU VM's system image; "-" where there are no TPU VMs, only GKE nodes.
      machine: the machine type of the GKE node.
      label: the value of the GKE node's label `cloud.google.com/gke-tpu-accelerator`.
    """

    type: str
    chip: str
    chips: int
    hosts: int
    topology: str
    runtime: str
    machine: str
    label: str

    @property
    def devices(self) -> int:
        """The number of JAX devices in the slice: a 7x chip is two devices, one for each of its chiplets."""
        return self.chips * (2 if self.chip == "tpu7x" else 1)

    def mesh(self, slices: int = 1) -> str:
        """Returns the `loop.mesh` for a number of slices.

        Parameters are sharded inside a slice and copied between slices, because the network between them is slower.
        """
        inside = f"fsdp:{self.devices}"
        return inside if slices == 1 else f"data:{slices},{inside}"


@functools.cache
def accelerators() -> dict[str, Accelerator]:
    """Returns all slices of the table by their `type`."""
    text = resources.files(__package__).joinpath("accelerators.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    made = [Accelerator(kind, chip, int(chips), int(hosts), *rest) for kind, chip, chips, hosts, *rest in rows]
    return {each.type: each for each in made}


def get_accelerator(name: str, where: str = "--type") -> Accelerator:
    """Returns the slice whose type is `name`.

    Raises:
      UserError: the table has no slice of this type.
    """
    if name not in accelerators():
        raise UserError(f"no TPU slice is of type {name!r}", where=where, fix=suggest(name, accelerators()))
    return accelerators()[name]
