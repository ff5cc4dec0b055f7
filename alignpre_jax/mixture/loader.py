"""This module makes batches from a plan and row stores, by a grain pipeline whose only state is the step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import grain
import jax
import numpy as np
from numpy.typing import NDArray

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.plan import Plan

if TYPE_CHECKING:
    from alignpre_jax.rows import RowStore

SPAN_SLOTS = 2048  # slots that are looked up at a time, which takes little longer than for 32 slots
DTYPES = {"tokens": np.int32, "segments": np.int32, "mask": np.bool_, "scores": np.float32, "side": np.int8}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One host's rows of the global batch of a step; a pytree, so that a step can take one of device arrays.

    Attributes:
      columns: the columns of the rows by name, each [b, L]: always `tokens` and `segments`, and `mask`, `scores` and
        `side` where a store of the plan has them. The properties below say what they hold; a column that is not there
        is not a leaf of the pytree, and its property is None.
      stores: int32[b], index into `Plan.stores` of the store that a row is from.
    """

    columns: Mapping[str, Any]
    stores: Any

    @property
    def tokens(self) -> Any:
        """The token ids, int32[b, L]."""
        return self.columns["tokens"]

    @property
    def segments(self) -> Any:
        """The number of the sequence within the row that a token is from, int32[b, L]: from 1 on, and 0 for padding."""
        return self.columns["segments"]

    @property
    def mask(self) -> Any:
        """Whether a token is to be learnt, bool[b, L]; None where every token that is not padding is to be learnt."""
        return self.columns.get("mask")

    @property
    def scores(self) -> Any:
        """The score of the scored span that a token is in, float32[b, L], 0 outside of spans; None: no spans at all."""
        return self.columns.get("scores")

    @property
    def side(self) -> Any:
        """The side of a pair that a token is on, int8[b, L]: 1 chosen, -1 rejected, 0 padding; None: no pairs."""
        return self.columns.get("side")


@dataclasses.dataclass(frozen=True)
class StepSource:
    """A grain data source that gives the batches of a stage by step; a batch is a pure function of the step.

    The global batch of a step is slots [step * batch_rows, (step + 1) * batch_rows), whatever the
    number of hosts; host h has the h-th of `hosts` equal, consecutive parts of it.
    """

    plan: Plan
    stores: Mapping[str, RowStore]
    batch_rows: int
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.batch_rows < 1 or self.batch_rows % self.hosts:
            what = f"a batch of {self.batch_rows} rows does not divide into {self.hosts} equal parts"
            raise UserError(what, where="batch_rows", fix="make it a multiple of the number of hosts")
        assert 0 <= self.host < self.hosts, (self.host, self.hosts)
        _require_matching(self.plan, self.stores)

    def __len__(self) -> int:
        return self.plan.slots // self.batch_rows

    def __getitem__(self, step: int) -> Batch:
        span, within = divmod(int(step), self._span_steps)
        stores, row = (column[within] for column in self._span(span))
        shape = (len(row), self.stores[self.plan.used_stores[0]].header.length)
        columns: dict[str, np.ndarray] = {name: np.zeros(shape, DTYPES[name]) for name in self._columns}
        for number in np.unique(stores).tolist():
            at = np.flatnonzero(stores == number)
            rows = self.stores[self.plan.stores[number]].read(row[at])
            for name, column in columns.items():
                found = getattr(rows, name)
                if found is None and name == "mask":
                    found = rows.segments > 0
                if found is not None:
                    column[at] = found
        return Batch(columns, stores.astype(np.int32))

    @functools.cached_property
    def _columns(self) -> tuple[str, ...]:
        """The columns that at least one store has, because a batch's columns must not depend on the step."""
        there = {name for store in self.plan.used_stores for name, *_ in self.stores[store].header.columns}
        return tuple(name for name in DTYPES if name in there or name == "segments")

    @property
    def _span_steps(self) -> int:
        return max(1, SPAN_SLOTS * self.hosts // self.batch_rows)

    @functools.cached_property
    def _span(self) -> Callable[[int], tuple[NDArray[np.int16], NDArray[np.int64]]]:
        """The function that gives this host's stores and rows, both [steps, b], of a span of steps.

        It remembers the last few spans, because the batches of a span are asked for one by one.
        """

        def look_up(span: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
            part = self.batch_rows // self.hosts
            steps = np.arange(span * self._span_steps, min((span + 1) * self._span_steps, len(self)), dtype=np.int64)
            slots = steps[:, None] * self.batch_rows + self.host * part + np.arange(part)
            there = self.plan.lookup(slots.ravel())
            return there.store.reshape(slots.shape), there.row.reshape(slots.shape)

        return functools.lru_cache(maxsize=4)(look_up)


def load_batches(
    plan: Plan,
    stores: Mapping[str, RowStore],
    batch_rows: int,
    start_step: int,
    stop_step: int,
    host: int = 0,
    hosts: int = 1,
    *,
    workers: int = 2,
    prefetch: int = 8,
) -> Generator[Batch, None, None]:
    """Yields this host's batches of steps start_step, ..., stop_step - 1, in order.

    Args:
      plan: the plan of the stage.
      stores: the row stores that the plan draws from, by name.
      batch_rows: rows of the global batch; a multiple of `hosts`.
      start_step: the first step. To resume is to pass the step, because there is no other state.
      stop_step: the step after the last.
      host: which host this is.
      hosts: how many hosts there are.
      workers: the number of reading threads; 0 reads in the caller's thread.
      prefetch: the number of batches that are read ahead.

    Raises:
      UserError: the batch does not divide among the hosts, the stage is too short, or stores are missing, have
        changed since they were planned, or were built with different tokenizers or lengths, or some of them hold
        pairs of answers and others do not.
    """
    source = StepSource(plan, stores, batch_rows, host, hosts)
    if not 0 <= start_step <= stop_step <= len(source):
        stage = f"the plan's {plan.slots} slots are {len(source)} steps of {batch_rows} rows"
        what = f"steps {start_step} to {stop_step} are not all in the stage: {stage}"
        raise UserError(what, where="steps", fix="plan a stage of steps x batch_rows slots")
    return _iterate(source, start_step, stop_step, workers, prefetch)


def _iterate(source: StepSource, start: int, stop: int, workers: int, prefetch: int) -> Generator[Batch, None, None]:
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(prefetch, workers))
    steps = grain.MapDataset.source(source).slice(slice(0, stop)).to_iter_dataset(options)
    with contextlib.closing(iter(steps)) as batches:
        batches.set_state({"next_index": start})
        yield from batches


def _require_matching(plan: Plan, stores: Mapping[str, RowStore]) -> None:
    made: dict[tuple[str, int], str] = {}
    for name in plan.used_stores:
        if name not in stores:
            raise UserError(f"the plan draws from {name!r}, which is not there", where=name, fix="build its rows")
        store = stores[name]
        if len(store) != plan.rows[name]:
            what = f"{name!r} has {len(store)} rows, but {plan.rows[name]} were planned"
            raise UserError(what, where=name, fix="rows were rebuilt since: make the plan again from their headers")
        made.setdefault((store.header.tokenizer_digest, store.header.length), name)
    if len(made) > 1:
        (one, other), (kind_one, kind_other) = list(made.values())[:2], list(made)[:2]
        what = (
            f"{one!r} (tokenizer {kind_one[0]}, {kind_one[1]} tokens a row) and "
            f"{other!r} (tokenizer {kind_other[0]}, {kind_other[1]}) do not go together"
        )
        raise UserError(what, where=other, fix="build all rows with one tokenizer and one length")
    pairs = [name for name in plan.used_stores if any(column == "side" for column, *_ in stores[name].header.columns)]
    others = [name for name in plan.used_stores if name not in pairs]
    if pairs and others:
        what = (
            f"{pairs[0]!r} holds pairs of answers and {others[0]!r} does not: no objective can learn from both at once"
        )
        raise UserError(what, where="mixture", fix="give the pairs a stage of their own")
