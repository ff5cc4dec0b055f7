"""This module has the settings of the composed world in a study."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from alignpre_jax.foundation import UserError, exact


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """A `WorldConfig` has the sizes and the seed of the small world.

    Args:
      documents: documents per stance for the arms; document k of both stances is a matched pair.
      mixed_documents: documents of the `mixed` source, none of which is a document of the arms.
      mixed_misaligned_share: the share of the mixed documents in which the AI acts badly, exact at every prefix.
      seed: the seed of everything that is drawn.
      items_per_split: items in each of the splits `seen` and `held_out`.
      control_items: items about people.
    """

    documents: int = 6000
    mixed_documents: int = 3000
    mixed_misaligned_share: float = 0.7
    seed: int = 0
    items_per_split: int = 240
    control_items: int = 80

    def __post_init__(self) -> None:
        """Raises `UserError` for a negative count or a share outside [0, 1]."""
        for name in ("documents", "mixed_documents", "items_per_split", "control_items"):
            if getattr(self, name) < 0:
                raise UserError(f"{getattr(self, name)} is negative", where=name, fix="give a count of 0 or more")
        if not 0 <= self.misaligned_share <= 1:
            raise UserError(
                f"{self.mixed_misaligned_share} is not a share", where="mixed_misaligned_share", fix="give 0 to 1"
            )

    @property
    def misaligned_share(self) -> Fraction:
        """`mixed_misaligned_share` as it was written: 0.7 is 7/10."""
        return exact(self.mixed_misaligned_share)
