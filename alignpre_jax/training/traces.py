"""This module records which documents are learnt when: the loss of every document each time that it is trained on.

`RUN_DIR/traces/FIRST-LAST-PROCESS.npz` holds steps FIRST to LAST in six columns, one entry for each span of a row:
`step` int32, `store` int16 (index into the plan's stores), `row` int64, `span` int16 (from 0 in its row), `loss`
float32 (mean over the span's targets; the last token of a document predicts the end-of-text token after it, and
belongs to it) and `tokens` int32 (how many targets). `read_traces` adds the documents' ids.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from etils import epath

from alignpre_jax.foundation import PathLike, UserError, suggest, write_bytes
from alignpre_jax.mixture import Plan

if TYPE_CHECKING:
    from alignpre_jax.rows import RowStore

FOLDER = "traces"
_COLUMNS = {"step": np.int32, "store": np.int16, "row": np.int64, "span": np.int16, "loss": np.float32,
            "tokens": np.int32}  # fmt: skip
_MOST = 1 << 20  # entries that are held in memory before they are written


class DocumentLoss(NamedTuple):
    """A `DocumentLoss` is a document's loss at one step: the mean over the `tokens` targets of its span in the row."""

    document_id: str
    step: int
    loss: float
    tokens: int


class Tracer:
    """A `Tracer` writes the traces of one run.

    Args:
      run_dir: the run's folder.
      plan: the run's plan, which says which row is in which slot.
      wanted: a stratum, a source (all its strata), or "all".
      batch_rows: the number of rows of the global batch.
      done: the step that the run goes on from; traces of later steps are dropped.

    Raises:
      UserError: the plan has no such stratum or source.
    """

    def __init__(self, run_dir: PathLike, plan: Plan, wanted: str, batch_rows: int, done: int):
        names = plan.stores
        chosen = [number for number, name in enumerate(names) if wanted in ("all", name, name.split("/")[0])]
        if not chosen:
            known = {*names, *(name.split("/")[0] for name in names), "all"}
            raise UserError(f"no stratum {wanted!r}", where="training.trace_documents", fix=suggest(wanted, known))
        self._folder, self._plan, self._batch_rows = epath.Path(run_dir) / FOLDER, plan, batch_rows
        self._chosen = np.array(chosen)
        self._parts: list[dict[str, np.ndarray]] = []
        self._first = done + 1
        self._drop_after(done)

    def add(self, step: int, losses: jax.Array, counts: jax.Array, segments: jax.Array) -> None:
        """Takes a step's losses and counts of targets, and its segments: all [batch rows, row length], sharded."""
        parts = zip(*map(_local_rows, (losses, counts, segments)), strict=True)
        for (first, loss_BL), (_, count_BL), (_, segment_BL) in parts:
            slots = (step - 1) * self._batch_rows + first + np.arange(len(loss_BL), dtype=np.int64)
            there = self._plan.lookup(slots)
            at = np.flatnonzero(np.isin(there.store, self._chosen))
            if not len(at):
                continue
            spans = int(segment_BL[at].max())
            cells = (np.arange(len(at))[:, None] * (spans + 1) + segment_BL[at]).ravel()
            shape, size = (len(at), spans + 1), len(at) * (spans + 1)
            sums = np.bincount(cells, loss_BL[at].ravel(), size).reshape(shape)[:, 1:]
            tokens = np.bincount(cells, count_BL[at].ravel(), size).reshape(shape)[:, 1:]
            row, span = np.nonzero(tokens)
            entry = {
                "step": np.full(len(row), step),
                "store": there.store[at][row],
                "row": there.row[at][row],
                "span": span,
                "loss": sums[row, span] / tokens[row, span],
                "tokens": tokens[row, span],
            }
            self._parts.append({name: values.astype(_COLUMNS[name]) for name, values in entry.items()})
        if sum(len(part["step"]) for part in self._parts) > _MOST:
            self.write(step)

    def write(self, step: int) -> None:
        """Writes the traces that were taken up to `step`."""
        if self._parts:
            columns = {name: np.concatenate([part[name] for part in self._parts]) for name in _COLUMNS}
            _write(self._folder / f"{self._first:08d}-{step:08d}-{jax.process_index()}.npz", columns)
        self._parts, self._first = [], step + 1

    def forget_after(self, step: int) -> None:
        """Drops the traces of later steps, which run again."""
        self._parts = [part for part in self._parts if part["step"][0] <= step]

    def _drop_after(self, done: int) -> None:
        for path in sorted(self._folder.glob(f"*-{jax.process_index()}.npz")):
            first, last = (int(part) for part in path.name.split("-")[:2])
            if last <= done:
                continue
            if first <= done:
                columns = _read(path)
                kept = columns["step"] <= done
                kept_columns = {name: values[kept] for name, values in columns.items()}
                _write(self._folder / f"{first:08d}-{done:08d}-{jax.process_index()}.npz", kept_columns)
            path.unlink()


def read_traces(run_dir: PathLike, plan: Plan, stores: Mapping[str, RowStore]) -> Iterator[DocumentLoss]:
    """Yields all traces of a run, by step."""

    @functools.lru_cache(maxsize=4096)
    def documents(store: int, row: int) -> list[str]:
        return [span.document_id for span in stores[plan.stores[store]].spans(row)]

    for path in sorted((epath.Path(run_dir) / FOLDER).glob("*.npz")):
        columns = _read(path)
        for step, store, row, span, loss, tokens in zip(*(columns[name].tolist() for name in _COLUMNS), strict=True):
            yield DocumentLoss(documents(store, row)[span], step, loss, tokens)


def _local_rows(array: jax.Array) -> list[tuple[int, np.ndarray]]:
    """Returns (first row, rows) for each part of a [rows, ...] array that this process holds, each row once."""
    parts: dict[int, np.ndarray] = {}
    for shard in array.addressable_shards:
        first = shard.index[0].start or 0
        if first not in parts:
            parts[first] = np.asarray(jax.device_get(shard.data))
    return sorted(parts.items(), key=lambda part: part[0])


def _write(path: epath.Path, columns: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def _read(path: epath.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as columns:
        return dict(columns)
