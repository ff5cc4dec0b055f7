"""This module says where two plans differ and where a row is used: the questions behind "nothing else moved"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.plan import Lookup, Plan

_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Differences:
    """The slots in which two plans have different rows, in order.

    Attributes:
      slots: int64[n].
      store_a: int16[n], index into the `stores` of plan a.
      overlay_a: int16[n], the overlay of plan a that put its row there (index into `overlays`), or -1.
      store_b: int16[n], as `store_a` for plan b.
      overlay_b: int16[n], as `overlay_a` for plan b.
    """

    slots: NDArray[np.int64]
    store_a: NDArray[np.int16]
    overlay_a: NDArray[np.int16]
    store_b: NDArray[np.int16]
    overlay_b: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.slots)

    def counts(self) -> dict[tuple[int, int], int]:
        """Counts the differing slots by reason: (overlay of a, overlay of b), where -1 stands for no overlay.

        The reason (-1, -1) means that the base plans differ.
        """
        reasons, counts = np.unique(np.stack([self.overlay_a, self.overlay_b]), axis=1, return_counts=True)
        return {(int(a), int(b)): int(n) for a, b, n in zip(*reasons, counts, strict=True)}


def differences(plan_a: Plan, plan_b: Plan) -> Differences:
    """Compares two plans by the name of the store and the row.

    It goes through the slots that overlays may touch, or through all slots where the base plans differ or the overlays
    touch much of the stage.

    Raises:
      UserError: the plans have different numbers of slots.
    """
    if plan_a.slots != plan_b.slots:
        what = f"the plans have {plan_a.slots} and {plan_b.slots} slots"
        raise UserError(what, where="slots", fix="compare stages of the same length")
    found = list(_differing(plan_a, plan_b)) if plan_a.digest() != plan_b.digest() else []
    empty = (np.empty(0, np.int64), *(np.empty(0, np.int16) for _ in range(4)))
    return Differences(*(np.concatenate(column) for column in zip(empty, *found, strict=True)))


def where(plan: Plan, store: str, row: int) -> NDArray[np.int64]:
    """Returns the slots at which a row is used, sorted (int64[uses]); slot // batch rows is the step."""
    return plan.slots_of(store, row)


def _differing(plan_a: Plan, plan_b: Plan) -> Iterator[tuple[NDArray[np.int64], *tuple[NDArray[np.int16], ...]]]:
    index_a = {name: number for number, name in enumerate(plan_a.stores)}
    renumbered = np.array([index_a.get(name, -1) for name in plan_b.stores], np.int16)
    for slots in _candidates(plan_a, plan_b):
        a: Lookup = plan_a.lookup(slots)
        b: Lookup = plan_b.lookup(slots)
        differ = (a.store != renumbered[b.store]) | (a.row != b.row)
        yield slots[differ], *(column[differ] for column in (a.store, a.overlay, b.store, b.overlay))


def _candidates(plan_a: Plan, plan_b: Plan) -> Iterable[NDArray[np.int64]]:
    """Returns slots in order, array by array; in all other slots the plans are the same."""
    bare_a, bare_b = (dataclasses.replace(plan, overlays=()) for plan in (plan_a, plan_b))
    overlays = [laid.overlay for laid in (*plan_a.laid, *plan_b.laid)]
    if bare_a.digest() != bare_b.digest() or 4 * sum(o.asked(plan_a.base) for o in overlays) > plan_a.slots:
        return plan_a.chunks()
    touched = [slots for overlay in overlays for slots in overlay.touched(plan_a.base)]
    slots = np.unique(np.concatenate([*touched, np.empty(0, np.int64)]))
    return (slots[first : first + _CHUNK] for first in range(0, len(slots), _CHUNK))
