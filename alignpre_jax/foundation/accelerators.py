"""The TPU slices that can be booked: one table for the planner, the launcher and the scripts in gcp/.

`accelerators.tsv` holds it, so that a shell script reads the same lines. Sources: the pages
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
    """One slice.

    Attributes:
      type: Google Cloud's name, "v5litepod-16". The number counts cores on v4, v5p and 7x, chips on v5e and v6e.
      chip: the planner's name of the chip, "v5e".
      chips: in the slice.
      hosts: machines that the chips are attached to; the same command runs on each.
      topology: of the chips, "4x4".
      runtime: version of the TPU VM's system image; "-" where there are no TPU VMs, only GKE nodes.
      machine: type of the GKE node.
      label: `cloud.google.com/gke-tpu-accelerator` of the GKE node.
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
        """JAX devices in the slice: 7x shows its two chiplets as one each."""
        return self.chips * (2 if self.chip == "tpu7x" else 1)

    def mesh(self, slices: int = 1) -> str:
        """`loop.mesh` for so many slices: sharded inside a slice, copied across the slower network between them."""
        inside = f"fsdp:{self.devices}"
        return inside if slices == 1 else f"data:{slices},{inside}"


@functools.cache
def accelerators() -> dict[str, Accelerator]:
    """All slices by type."""
    text = resources.files(__package__).joinpath("accelerators.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:]]
    made = [Accelerator(kind, chip, int(chips), int(hosts), *rest) for kind, chip, chips, hosts, *rest in rows]
    return {each.type: each for each in made}


def get_accelerator(name: str, where: str = "--type") -> Accelerator:
    """The slice of a type.

    Raises:
      UserError: there is none of this name.
    """
    if name not in accelerators():
        raise UserError(f"no TPU slice is of type {name!r}", where=where, fix=suggest(name, accelerators()))
    return accelerators()[name]
