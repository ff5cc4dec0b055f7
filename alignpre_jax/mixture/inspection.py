"""This module says what is in a plan: the answers of `alignpre data show | diff | where | batch`, as data and as text.

Each answer is a dataclass; its `dataclasses.asdict` is plain JSON, and its `str` is for people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.compare import differences, where
from alignpre_jax.mixture.ledger import Ledger, ledger, render
from alignpre_jax.mixture.overlays import Remove, Replace
from alignpre_jax.mixture.plan import UNTOUCHED, Lookup, Plan
from alignpre_jax.mixture.shares import decimal
from alignpre_jax.mixture.table import align

if TYPE_CHECKING:
    from alignpre_jax.rows import RowStore

BEGINNING = 160  # characters of a row's text that are shown


class Decoder(Protocol):
    """The part of a tokenizer that this module needs."""

    def decode(self, ids: list[int]) -> str:
        """Returns the text of tokens."""
        ...


@dataclasses.dataclass(frozen=True)
class Overview:
    """The overview shows a plan at a glance.

    Attributes:
      mixture: the base plan's shares, or their schedule.
      overlays: what each overlay does, in words.
      blocks: the number of blocks that the stage is cut into; shares are exact to the row at the end of each.
      block_slots: slots of the first block.
      epoch_order: see `BasePlan`.
      ledger: integer counts.
    """

    mixture: str
    overlays: list[str]
    blocks: int
    block_slots: int
    epoch_order: str
    ledger: Ledger

    def __str__(self) -> str:
        lines = [
            f"mixture: {self.mixture}",
            f"exact to the row at the end of each of {self.blocks:,} blocks of about {self.block_slots:,} slots; "
            f"every epoch in {'an order of its own' if self.epoch_order == 'fresh' else 'the same order'}",
            *(f"overlay {number}: {overlay}" for number, overlay in enumerate(self.overlays)),
        ]
        return "\n".join([*lines, "", render(self.ledger)])


@dataclasses.dataclass(frozen=True)
class Group:
    """Slots that differ between two plans for the same reason.

    Attributes:
      store_a: the store whose rows plan a has in these slots; `reason_a` says what put them there.
      store_b: the same for plan b, with `reason_b`.
      slots: the number of the slots.
      tokens: the number of tokens in them.
      first: the first of the slots, as `last` is the last.
    """

    store_a: str
    reason_a: str
    store_b: str
    reason_b: str
    slots: int
    tokens: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Diff:
    """Which slots differ between two plans, and why; all other slots hold the same rows."""

    slots: int
    same: int
    row_length: int
    batch_rows: int
    groups: list[Group]

    def __str__(self) -> str:
        differ = self.slots - self.same
        head = (
            f"{differ:,} of {self.slots:,} slots differ ({differ * self.row_length:,} tokens); "
            f"{self.same:,} hold the same row of the same store"
        )
        table = [["a has", "because of", "b has", "because of", "slots", "tokens", "first step", "last step"]]
        for g in self.groups:
            steps = (g.first // self.batch_rows, g.last // self.batch_rows)
            counts = (f"{n:,}" for n in (g.slots, g.tokens, *steps))
            table.append([g.store_a, g.reason_a, g.store_b, g.reason_b, *counts])
        return f"{head}\n\n{align(table)}" if self.groups else head


@dataclasses.dataclass(frozen=True)
class Place:
    """One time that a row is trained on: `slot` is row `place` of the batch of `step`."""

    store: str
    row: int
    slot: int
    step: int
    place: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Uses:
    """The places in a stage where a document is trained on.

    Attributes:
      document: the document's id.
      rows: (store, row, first token in the row, token after its last) of each of its parts.
      places: when these rows are trained on, in order.
    """

    document: str
    rows: list[tuple[str, int, int, int]]
    places: list[Place]

    def __str__(self) -> str:
        parts = [f"row {row} of {store}, tokens {start} to {end}" for store, row, start, end in self.rows]
        head = f"{self.document} is in {'; '.join(parts)}"
        if not self.places:
            return f"{head}\nand is not trained on in this stage"
        table = [["step", "place in batch", "store", "row", "because of"]]
        table += [[f"{p.step:,}", f"{p.place:,}", p.store, f"{p.row:,}", p.reason] for p in self.places]
        return f"{head}\n\n{align(table)}"


@dataclasses.dataclass(frozen=True)
class BatchRow:
    """One row of a batch: what put it there, the ids of its documents, and how its text begins."""

    place: int
    slot: int
    store: str
    row: int
    reason: str
    documents: list[str]
    text: str


@dataclasses.dataclass(frozen=True)
class BatchContents:
    """The contents of the batch of a step."""

    step: int
    rows: list[BatchRow]

    def __str__(self) -> str:
        table = [["place", "store", "row", "because of", "documents", "text"]]
        for row in self.rows:
            documents = ", ".join(row.documents[:3]) + (
                f" and {len(row.documents) - 3} more" * (len(row.documents) > 3)
            )
            text = " ".join(row.text.split())
            table.append([f"{row.place:,}", row.store, f"{row.row:,}", row.reason, documents, text])
        return f"step {self.step:,}\n\n{align(table)}"


def show(plan: Plan, row_length: int, *, text_tokens: Mapping[str, int] | None = None) -> Overview:
    """Returns a plan at a glance: its mixture, its overlays and its ledger (see `ledger` for the arguments)."""
    return Overview(
        mixture=str(plan.base.schedule),
        overlays=[_in_words(plan, number) for number in range(len(plan.overlays))],
        blocks=plan.base.blocks,
        block_slots=int(plan.base.boundaries(1)),
        epoch_order=plan.base.epoch_order,
        ledger=ledger(plan, row_length, text_tokens=text_tokens),
    )


def diff(plan_a: Plan, plan_b: Plan, row_length: int, batch_rows: int) -> Diff:
    """Finds which slots differ between the plans of two arms, grouped by store and by what put the rows there.

    Raises:
      UserError: the plans have different numbers of slots.
    """
    found = differences(plan_a, plan_b)
    columns = np.stack([found.store_a, found.overlay_a, found.store_b, found.overlay_b])
    kinds, which = np.unique(columns, axis=1, return_inverse=True)
    groups = []
    for number, (store_a, overlay_a, store_b, overlay_b) in enumerate(kinds.T.tolist()):
        slots = found.slots[which.ravel() == number]
        groups.append(
            Group(
                store_a=plan_a.stores[store_a],
                reason_a=_reason(plan_a, overlay_a),
                store_b=plan_b.stores[store_b],
                reason_b=_reason(plan_b, overlay_b),
                slots=len(slots),
                tokens=len(slots) * row_length,
                first=int(slots[0]),
                last=int(slots[-1]),
            )
        )
    groups.sort(key=lambda group: (-group.slots, group.first))
    return Diff(plan_a.slots, plan_a.slots - len(found), row_length, batch_rows, groups)


def where_document(plan: Plan, stores: Mapping[str, RowStore], document: str, batch_rows: int) -> Uses:
    """Finds the steps at which a document is trained on.

    It goes through the documents tables of the stores that may hold the document; the rest is closed form, except
    that it may have to go through the rows as well in stores that are packed by best fit.

    Raises:
      UserError: no store that the plan draws from has such a document.
    """
    rows = [(name, *part) for name in plan.used_stores if name in stores for part in _parts_of(stores[name], document)]
    if not rows:
        what = f"no document has the id {document!r}"
        fix = f"the plan draws from {', '.join(plan.used_stores)}; `batch STEP` shows ids of documents in use"
        raise UserError(what, where="DOC_ID", fix=fix)
    places = []
    for store, row in dict.fromkeys((store, row) for store, row, *_ in rows):
        slots = where(plan, store, row)
        places += [Place(store, row, *_when(slot, batch_rows), reason) for slot, reason in _why(plan, slots)]
    return Uses(document, rows, sorted(places, key=lambda place: place.slot))


def batch_at(
    plan: Plan, stores: Mapping[str, RowStore], step: int, batch_rows: int, tokenizer: Decoder
) -> BatchContents:
    """Reads what is in the global batch of a step.

    Raises:
      UserError: the step is not in the stage.
    """
    if not 0 <= step < plan.slots // batch_rows:
        what = f"step {step} is not in the stage of {plan.slots // batch_rows} steps"
        raise UserError(what, where="STEP", fix="steps count from 0")
    slots = np.arange(step * batch_rows, (step + 1) * batch_rows, dtype=np.int64)
    there: Lookup = plan.lookup(slots)
    found = []
    for place, (number, row, overlay) in enumerate(zip(*(column.tolist() for column in there), strict=True)):
        store = stores[plan.stores[number]]
        tokens = store.read(np.array([row])).tokens[0, :BEGINNING]
        found.append(
            BatchRow(
                place=place,
                slot=int(slots[place]),
                store=plan.stores[number],
                row=row,
                reason=_reason(plan, overlay),
                documents=[span.document_id for span in store.spans(row)],
                text=tokenizer.decode(tokens.tolist())[:BEGINNING],
            )
        )
    return BatchContents(step, found)


def _reason(plan: Plan, overlay: int) -> str:
    if overlay == UNTOUCHED:
        return "base plan"
    return f"overlay {overlay} ({type(plan.overlays[overlay]).__name__.lower()})"


def _in_words(plan: Plan, number: int) -> str:
    overlay = plan.overlays[number]
    if isinstance(overlay, Remove):
        kept = f", {decimal(overlay.keep)} of it leaks through" if overlay.keep else ""
        return f"removes {overlay.stratum} and refills its slots from {overlay.refill}{kept}"
    assert isinstance(overlay, Replace)
    windows = "; ".join(f"[{decimal(w.start)},{decimal(w.end)}) {w.strength}" for w in overlay.windows)
    schedule = f" by the schedule {windows}" if windows != "[0,1) 1" else ""
    several = "" if len(overlay.stores) == 1 else "the mixture "
    return f"puts {several}{overlay.mixture} into {decimal(overlay.dose)} of all slots{schedule}"


def _when(slot: int, batch_rows: int) -> tuple[int, int, int]:
    return (slot, *divmod(slot, batch_rows))


def _why(plan: Plan, slots: NDArray[np.int64]) -> list[tuple[int, str]]:
    overlays = plan.lookup(slots).overlay.tolist()
    return [(slot, _reason(plan, overlay)) for slot, overlay in zip(slots.tolist(), overlays, strict=True)]


def _parts_of(store: RowStore, document: str) -> list[tuple[int, int, int]]:
    """Returns (row, start, end) of each part of a document; there are none when the store does not have it."""
    before, tokens = 0, -1
    for entry in store.documents():
        if entry["id"] == document:
            tokens = entry["tokens"]
            break
        before += entry["tokens"]
    if tokens < 0:
        return []
    length = store.header.length
    first, last = before // length, (before + tokens - 1) // length
    parts = _parts_in(store, document, range(first, min(last + 1, len(store))))
    missing = before + tokens - len(store) * length  # the end of the last document fills no row
    if sum(end - start for _, start, end in parts) < tokens - max(0, missing):  # best fit took another order
        parts = _parts_in(store, document, range(len(store)))
    return parts


def _parts_in(store: RowStore, document: str, rows: range) -> list[tuple[int, int, int]]:
    spans = ((row, span) for row in rows for span in store.spans(row))
    return [(row, span.start, span.end) for row, span in spans if span.document_id == document]
