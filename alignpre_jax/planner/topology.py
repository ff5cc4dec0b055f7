"""Describes slices of chips by the TPU compiler's names for them."""

from __future__ import annotations

import dataclasses
import math

from alignpre_jax.foundation import CHIPS, Chip, UserError, accelerators, suggest

ALIASES = {"7x": "tpu7x", "v5litepod": "v5e"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A topology is `slices` slices of one shape, joined by DCN; `name` is the compiler's name of one ("v5e:4x4")."""

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The chip that the slices are made of."""
        return CHIPS[self.kind]

    @property
    def name(self) -> str:
        """KIND:SHAPE, as the compiler and the command line write it."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """The number of chips in all slices together."""
        return self.slices * math.prod(self.shape)


def parse_topology(text: str, slices: int = 1) -> Topology:
    """Returns the topology of "v5e:4x4" or "7x:2x2x1", or of the type of a slice, such as "v5litepod-16".

    Raises:
      UserError: the chip is unknown, the shape is not NxM or NxMxK, or there are no slices.
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
