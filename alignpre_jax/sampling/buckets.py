"""Chooses the few shapes in which programs are compiled."""

from __future__ import annotations

import dataclasses

from alignpre_jax.foundation import UserError
from alignpre_jax.model import DecoderConfig

PREFILLED = 8  # prompts that are read at a time
_STEP = 128  # room in a cache grows by doubling this


@dataclasses.dataclass(frozen=True)
class Buckets:
    """How large the few shapes are in which programs are compiled.

    Args:
      length: tokens of a scoring row; rows of 2, 4, 8 ... times as many are for what does not fit.
      tokens: tokens of a full scoring batch; smaller batches have an 8th and a 64th of its rows.
      scores_bytes: the most memory of a batch's float32 attention scores in one layer.
      logits_bytes: the most memory of the float32 logits that are computed at a time.
      rows: how many rows generate at a time.
      steps: tokens that are decoded between two checks of which rows are done; 1 or 4 where no more are wanted.
    """

    length: int = 256
    tokens: int = 8192
    scores_bytes: int = 1 << 30
    logits_bytes: int = 32 << 20
    rows: int = 64
    steps: int = 16

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise UserError(f"{getattr(self, field.name)} is not a size", where=field.name, fix="give at least 1")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """All shapes that one engine compiles programs in.

    Attributes:
      lengths: lengths of rows that are read, ascending; the last one holds whatever fits the context.
      heights: numbers of rows that are scored together, for each length, ascending.
      prompts: numbers of rows that prompts are read in together, for each length, ascending.
      reads: the number of places at which logits are computed together.
      rows: numbers of rows that generate at a time, ascending.
      slots: numbers of tokens that a generating row has room for, ascending.
      steps: numbers of tokens that are decoded in a call, ascending.
    """

    lengths: tuple[int, ...]
    heights: dict[int, tuple[int, ...]]
    prompts: dict[int, tuple[int, ...]]
    reads: int
    rows: tuple[int, ...]
    slots: tuple[int, ...]
    steps: tuple[int, ...]


def shapes(config: DecoderConfig, buckets: Buckets, shards: int, *, invariant: bool) -> Shapes:
    """Returns the shapes for a model.

    Args:
      config: the decoder's config.
      buckets: how large the shapes may be.
      shards: what numbers of rows are multiples of.
      invariant: whether there is only one number of rows of each kind and length, so that a request's length alone
        decides its shapes.
    """
    lengths, slots = [buckets.length], [_STEP]
    while lengths[-1] < config.max_length:
        lengths.append(2 * lengths[-1])
    while slots[-1] < config.max_length:
        slots.append(2 * slots[-1])
    heights, prompts = {}, {}
    for length in lengths:
        fits = max(1, buckets.scores_bytes // (4 * config.heads * length * length))
        most = max(1, min(buckets.tokens // length, fits))
        heights[length] = _multiples((most / part for part in (64, 8, 1)), shards)
        prompts[length] = _multiples((n for n in (1, 2, 4, PREFILLED) if n <= fits), shards)
    rows = _multiples((min(n, buckets.rows) for n in (1, PREFILLED, buckets.rows // 2, buckets.rows)), shards)
    steps = tuple(sorted({1, min(4, buckets.steps), buckets.steps}))
    if invariant:
        steps = tuple(sorted({1, buckets.steps}))
        rows = rows[-1:]
        heights, prompts = ({n: some[n][-1:] for n in lengths} for some in (heights, prompts))
    reads = max(8, buckets.logits_bytes // (4 * config.padded_vocab) // 8 * 8)
    return Shapes(tuple(lengths), heights, prompts, reads, rows, tuple(slots), steps)


def _multiples(numbers, of: int) -> tuple[int, ...]:
    """Returns each number rounded up to a multiple of `of`, without repetition, ascending."""
    return tuple(sorted({of * max(1, -int(-n // of)) for n in numbers}))
