"""The compiled half of scoring: hidden states of packed rows, and log-probs at the places that are asked for.

Legend: B rows, L length, S = B * L, D width, R reads, M targets, V vocab.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from alignpre_jax.model import DecoderConfig, InferenceWeights, inference
from alignpre_jax.model.sharding import constrain
from alignpre_jax.sampling.buckets import Shapes
from alignpre_jax.sampling.packing import Packed
from alignpre_jax.sampling.programs import Programs

TARGETS = 2  # how many targets there is room for, per place that is read


@functools.partial(jax.jit, static_argnums=(0, 1))
def hidden_states(config: DecoderConfig, sizes: tuple[int, int], weights: InferenceWeights, rows: tuple) -> jax.Array:
    """Returns the hidden states [S, D] of packed rows: (tokens, positions, until), int32 of `sizes` [B, L]."""
    del sizes
    hidden_BLD, _ = inference.read(config, weights, *rows)
    return hidden_BLD.reshape(-1, hidden_BLD.shape[-1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_out(
    config: DecoderConfig, sizes: tuple[int, int], weights: InferenceWeights, hidden_SD: jax.Array, ask: tuple
) -> tuple[jax.Array, jax.Array]:
    """Returns (log p(target), whether the target is the most probable token), float32 and bool [M].

    Logits are computed only at the places that are read. `ask` is (places [R] that are read, the number [M] of each
    target's place among them, targets [M]); `sizes` is (S, R).
    """
    del sizes
    reads_R, which_M, targets_M = ask
    logits_RV = inference.logits_of(config, weights, hidden_SD[reads_R])
    total_R, best_R = jax.nn.logsumexp(logits_RV, axis=-1), jnp.argmax(logits_RV, axis=-1)
    logprobs_M, greedy_M = logits_RV[which_M, targets_M] - total_R[which_M], best_R[which_M] == targets_M
    return constrain(logprobs_M, (None,), "log-probs"), constrain(greedy_M, (None,), "greedy")


@dataclasses.dataclass(frozen=True)
class Started:
    """A batch that is being computed; for each call of `read_out`, `parts` has the numbers of its targets and its
    results."""

    packed: Packed
    parts: list[tuple[np.ndarray, tuple[jax.Array, jax.Array]]]

    def wait(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits for the results of `read_out`, and returns them for all targets of the batch, in the batch's order."""
        logprobs, greedy = np.zeros(len(self.packed.targets), np.float32), np.zeros(len(self.packed.targets), bool)
        for here, (some_logprobs, some_greedy) in self.parts:
            logprobs[here] = np.asarray(some_logprobs)[: len(here)]
            greedy[here] = np.asarray(some_greedy)[: len(here)]
        return logprobs, greedy


def score_batch(programs: Programs, packed: Packed, reads: int) -> Started:
    """Starts the computation of one batch, `reads` places at a time.

    Nothing waits here, so that the host packs the next batch while the device computes this one.
    """
    rows = (packed.tokens, packed.positions, packed.until)
    hidden_SD = programs.call(hidden_states, packed.tokens.shape, rows)
    parts = []
    for here, ask in _asks(packed, reads):
        parts.append((here, programs.call(read_out, (packed.tokens.size, reads), hidden_SD, ask)))
    return Started(packed, parts)


def compile_score(programs: Programs, config: DecoderConfig, size: tuple[int, int], shapes: Shapes) -> None:
    """Compiles the programs that score batches of `size` [B, L]."""
    del config
    row, reads = np.zeros(size, np.int32), shapes.reads
    hidden_SD = programs.outputs(hidden_states, size, (row, row, row))
    which = np.zeros(TARGETS * reads, np.int32)
    programs.compile(read_out, (row.size, reads), hidden_SD, (np.zeros(reads, np.int32), which, which))


def _asks(packed: Packed, reads: int) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yields the numbers of the targets of each call of `read_out`, and its `ask`.

    A place at which several tokens are asked for is read once.
    """
    order = np.argsort(packed.reads, kind="stable")
    places = packed.reads[order]
    fresh = np.diff(places, prepend=-1) > 0
    number = np.cumsum(fresh) - 1  # of each target's place, over the whole batch
    start, most = 0, TARGETS * reads
    while start < len(order):
        end = min(start + most, int(np.searchsorted(number, number[start] + reads)))
        here = slice(start, end)
        which = number[here] - number[start]
        wanted = np.unique(places[here])
        yield order[here], (_padded(wanted, reads), _padded(which, most), _padded(packed.targets[order[here]], most))
        start = end


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    return np.pad(values, (0, size - len(values))).astype(np.int32)
