"""The ledger: integer counts of what a plan was asked for and what it gives."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np

from alignpre_jax.mixture.plan import UNTOUCHED, Plan
from alignpre_jax.mixture.shares import round_half_up


@dataclasses.dataclass(frozen=True)
class StoreLine:
    """One store's part of a stage.

    Attributes:
      store: its name.
      rows: rows it has.
      asked_slots: the base plan's share of the stage, to the nearest slot.
      base_slots: slots the base plan gives it.
      slots: slots it has after the overlays.
      asked_tokens: the base plan's share of the stage, to the nearest token.
      tokens: tokens it has after the overlays.
      duplicates: slots that repeat a row already used.
    """

    store: str
    rows: int
    asked_slots: int
    base_slots: int
    slots: int
    asked_tokens: int
    tokens: int
    duplicates: int

    @property
    def epochs(self) -> float:
        """How often the store is gone through."""
        return self.slots / self.rows if self.rows else 0.0


@dataclasses.dataclass(frozen=True)
class OverlayLine:
    """One overlay's part of a stage.

    Attributes:
      overlay: its index in `Plan.overlays`.
      kind: "replace" or "remove".
      store: the store whose rows it brings in.
      asked_slots: slots it was to touch.
      slots: slots it has; fewer than asked where a later overlay took the same slot.
      asked_tokens: the same in tokens.
      tokens: the same in tokens.
      displaced: the slots it has, by the store that the base plan had there.
    """

    overlay: int
    kind: str
    store: str
    asked_slots: int
    slots: int
    asked_tokens: int
    tokens: int
    displaced: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What a stage asks for and gets; every number is an integer count."""

    digest: str
    slots: int
    row_length: int
    tokens: int
    stores: tuple[StoreLine, ...]
    overlays: tuple[OverlayLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, with `epochs` worked out."""
        plain = dataclasses.asdict(self)
        plain["stores"] = [dataclasses.asdict(line) | {"epochs": line.epochs} for line in self.stores]
        plain["overlays"] = list(plain["overlays"])
        return plain


def ledger(plan: Plan, row_length: int) -> Ledger:
    """Counts a plan by going through all its slots.

    Some million slots a second; holds one byte per row of each store in use, to tell the duplicates.

    Args:
      plan: the plan of one arm's stage.
      row_length: tokens per row.
    """
    base, kinds = plan.base, len(plan.overlays)
    counts = np.zeros((kinds + 1, len(plan.stores)), np.int64)  # the first line is for untouched slots
    displaced = np.zeros((kinds + 1, len(base.sources)), np.int64)
    seen = {plan.stores.index(name): np.zeros(plan.rows[name], bool) for name in plan.used_stores}
    for slots in plan.chunks():
        there = plan.lookup(slots)
        counts += _table(there.overlay + 1, there.store, counts.shape)
        touched = there.overlay != UNTOUCHED
        if touched.any():
            sources, _ = base.uses(slots[touched])
            displaced += _table(there.overlay[touched] + 1, sources, displaced.shape)
        for number, rows in seen.items():
            rows[there.row[there.store == number]] = True
    assert counts.sum() == plan.slots

    def line(number: int, store: str) -> StoreLine:
        share, slots = base.shares.get(store, Fraction(0)), int(counts[:, number].sum())
        return StoreLine(
            store=store,
            rows=plan.rows[store],
            asked_slots=round_half_up(share * plan.slots),
            base_slots=base.counts.get(store, 0),
            slots=slots,
            asked_tokens=round_half_up(share * plan.slots * row_length),
            tokens=slots * row_length,
            duplicates=slots - (int(seen[number].sum()) if number in seen else 0),
        )

    def change(number: int) -> OverlayLine:
        overlay, slots = plan.overlays[number], int(counts[number + 1].sum())
        asked = overlay.asked(base)
        pairs = zip(base.sources, displaced[number + 1].tolist(), strict=True)
        return OverlayLine(
            overlay=number,
            kind=str(overlay.describe(base)["kind"]),
            store=overlay.store,
            asked_slots=asked,
            slots=slots,
            asked_tokens=asked * row_length,
            tokens=slots * row_length,
            displaced={source: count for source, count in pairs if count},
        )

    return Ledger(
        digest=plan.digest(),
        slots=plan.slots,
        row_length=row_length,
        tokens=plan.slots * row_length,
        stores=tuple(line(number, store) for number, store in enumerate(plan.stores)),
        overlays=tuple(change(number) for number in range(kinds)),
    )


def render(ledger: Ledger) -> str:
    """The ledger as a plain-text table."""
    stores = [["store", "rows", "asked tokens", "tokens", "slots", "base slots", "epochs", "duplicates"]]
    for line in ledger.stores:
        figures = (line.rows, line.asked_tokens, line.tokens, line.slots, line.base_slots)
        stores.append([line.store, *(f"{n:,}" for n in figures), f"{line.epochs:.4f}", f"{line.duplicates:,}"])
    overlays = [["overlay", "store", "asked tokens", "tokens", "slots", "displaced (slots)"]]
    for change in ledger.overlays:
        displaced = ", ".join(f"{store} {count:,}" for store, count in change.displaced.items()) or "nothing"
        changed = (change.asked_tokens, change.tokens, change.slots)
        overlays.append(
            [f"{change.overlay} {change.kind}", change.store, *(f"{n:,}" for n in changed), displaced],
        )
    head = f"{ledger.tokens:,} tokens in {ledger.slots:,} slots of {ledger.row_length:,} (plan {ledger.digest})"
    return "\n\n".join([head, _align(stores)] + ([_align(overlays)] if ledger.overlays else []))


def _table(lines: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How often each (line, column) occurs."""
    cells = lines.astype(np.int64) * shape[1] + columns
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _align(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    number = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*table, strict=True)]
    number[0] = False
    cells = [
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, number, strict=True)
        )
        for line in table
    ]
    return "\n".join(line.rstrip() for line in cells)
