"""The engine: a model and its tokenizer, asked for log-probs and for text."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from alignpre_jax.foundation import PathLike, UserError
from alignpre_jax.model import DecoderConfig
from alignpre_jax.sampling import generation, scoring
from alignpre_jax.sampling.packing import Ids, Packed, Question, batches
from alignpre_jax.sampling.strategies import Strategy

OnText = Callable[[int, str], None]  # (number of the prompt, new text)


class TextCodec(Protocol):
    """What the engine needs of a tokenizer: `rows.Tokenizer`, or any other with these names."""

    vocab_size: int
    eot_id: int

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A continuation's log-prob: nats, summed over its `tokens`; `greedy`: each of them was the most probable."""

    logprob: float
    tokens: int
    greedy: bool


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The few shapes in which programs are compiled.

    Args:
      length: tokens of a scoring row; rows of 2, 4, 8 ... times as many are for what does not fit.
      tokens: of a full scoring batch; smaller ones have an 8th and a 64th of its rows.
      scores_bytes: most memory of a batch's float32 attention scores in one layer.
      logits_bytes: most memory of the float32 logits that are computed at a time.
      rows: of a full generation batch.
      prompt: generation prompts are padded to a multiple of this many tokens.
      steps: tokens that are decoded between two looks at which rows are done.
    """

    length: int = 256
    tokens: int = 8192
    scores_bytes: int = 1 << 30
    logits_bytes: int = 16 << 20
    rows: int = 32
    prompt: int = 64
    steps: int = 16

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise UserError(f"{getattr(self, field.name)} is not a size", where=field.name, fix="give at least 1")


class Engine:
    """Scores and generates with one set of parameters.

    Every prompt is preceded by the tokenizer's end-of-text token, as every document was in training.

    Args:
      params: of the decoder, in training's or any other float dtype.
      config: of the decoder.
      tokenizer: its vocabulary must fit the model's.
      buckets: shapes that programs are compiled for.
      mesh: the devices that `params` are spread over, if more than one.

    Attributes:
      truncated: how many prefixes and prompts have lost their beginning because they did not fit the context.
      shapes: the shapes of the programs that were run, one compilation each.

    Raises:
      UserError: the tokenizer has ids that the model does not know.
    """

    def __init__(
        self,
        params: nnx.State,
        config: DecoderConfig,
        tokenizer: TextCodec,
        *,
        buckets: Buckets | None = None,
        mesh: Mesh | None = None,
    ):
        if tokenizer.vocab_size > config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model knows {config.vocab_size}",
                where="tokenizer",
                fix="use the tokenizer that the model was trained with",
            )
        self.config, self.tokenizer = config, tokenizer
        self.buckets = Buckets() if buckets is None else buckets
        self.truncated = 0
        self.shapes: set[tuple[int, ...]] = set()
        self._mesh = mesh
        self._params = scoring.inference_params(config, params)

    @classmethod
    def from_checkpoint(cls, path: PathLike, step: int | None = None, *, mesh: Mesh | None = None) -> Engine:
        """The model of a run's folder at `step` (default: the newest), its parameters laid out over `mesh`."""
        from alignpre_jax.rows import load_tokenizer
        from alignpre_jax.training.checkpoints import load_params

        params, config, tokenizer = load_params(path, step, mesh=mesh)
        return cls(params, config, load_tokenizer(tokenizer), mesh=mesh)

    def score(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Score]]:
        """log p(continuation | prefix) of each continuation of each request.

        Prefix and continuation are tokenised apart, so a continuation's tokens do not depend on the prefix. A prefix
        runs once for all its continuations, and beginnings that requests have in common are shared too. A prefix that
        is too long for the model's context together with its longest continuation loses its beginning, which
        `truncated` counts. What else is in the call does not change a score beyond float32 rounding.

        Raises:
          UserError: an empty continuation, or one that alone is longer than the context.
        """
        texts = [text for prefix, continuations in requests for text in (prefix, *continuations)]
        encoded = iter(self._encode(texts))
        asked: list[list[Question]] = []
        for number, (_, continuations) in enumerate(requests):
            prefix = (self.tokenizer.eot_id, *next(encoded))
            targets = [tuple(next(encoded)) for _ in continuations]
            for text, target in zip(continuations, targets, strict=True):
                self._check_target(target, text, f"request {number}")
            kept = self._truncate(prefix, max(map(len, targets), default=1) - 1)
            asked.append([Question(kept, target) for target in targets])
        found = self._score(question for questions in asked for question in questions)
        return [[found[question] for question in questions] for questions in asked]

    def rolling(self, texts: Sequence[str]) -> list[Score]:
        """log p(text) of whole documents; every token of a text is predicted once.

        A text longer than the context is cut into windows: the first begins with end-of-text, each of the others with
        the last token of the one before (the disjoint windows of lm-eval).
        """
        size = self.config.max_length
        asked = []
        for ids in self._encode(texts):
            row = (self.tokenizer.eot_id, *ids)
            asked.append([Question(row[s : s + 1], row[s + 1 : s + 1 + size]) for s in range(0, len(ids), size)])
        found = self._score(question for questions in asked for question in questions)
        return [_sum([found[question] for question in questions]) for questions in asked]

    def generate(
        self,
        prompts: Sequence[str],
        strategy: Strategy,
        max_new_tokens: int,
        seed: int | Sequence[int] = 0,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Continues each prompt until end-of-text or `max_new_tokens`; returns the new text alone.

        Args:
          prompts: may be empty strings. One that leaves no room for the new tokens loses its beginning (counted).
          strategy: how a token is chosen.
          max_new_tokens: at most so many.
          seed: the i-th prompt draws from (seed, i), or from seed[i] when a sequence is given; nothing else about the
            batch matters, beyond float32 rounding of the logits.
          on_text: told new text as it comes.

        Raises:
          UserError: `max_new_tokens` is below 1 or does not fit the context.
        """
        room = self.config.max_length - max_new_tokens
        if max_new_tokens < 1 or room < 1:
            raise UserError(
                f"{max_new_tokens} new tokens for a context of {self.config.max_length}",
                where="max_new_tokens",
                fix=f"give 1 to {self.config.max_length - 1}",
            )
        if not isinstance(seed, int) and len(seed) != len(prompts):
            raise UserError(f"{len(seed)} seeds for {len(prompts)} prompts", where="seed", fix="give one for each")
        encoded = [(self.tokenizer.eot_id, *ids) for ids in self._encode(prompts)]
        cut = [self._truncate(ids, max_new_tokens) for ids in encoded]
        if isinstance(seed, int):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(len(prompts)))
        else:
            keys = jax.vmap(jax.random.key)(np.asarray(seed, np.uint32))
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda number: len(cut[number]))
        for start in range(0, len(order), self.buckets.rows):
            group = order[start : start + self.buckets.rows]
            ids = self._decode([cut[i] for i in group], keys[np.array(group)], strategy, max_new_tokens, group, on_text)
            for number, new in zip(group, ids, strict=True):
                texts[number] = self.tokenizer.decode(new)
        return texts

    def _score(self, questions: Iterable[Question]) -> dict[Question, Score]:
        lengths, heights = self._grid()
        reads = max(1, self.buckets.logits_bytes // (4 * self.config.padded_vocab))
        found: dict[Question, Score] = {}
        waiting: tuple[Packed, scoring.Started] | None = None  # one batch is packed while one is computed
        with self._devices():
            for packed in batches(questions, lengths, heights):
                self.shapes.add(packed.tokens.shape)
                started = scoring.score_batch(self.config, self._params, packed, reads)
                if waiting:
                    found |= _collect(*waiting)
                waiting = (packed, started)
        return found | _collect(*waiting) if waiting else found

    def _grid(self) -> tuple[list[int], dict[int, tuple[int, ...]]]:
        """Row lengths up to the first that holds any prefix with any continuation, and numbers of rows for each."""
        lengths = [self.buckets.length]
        while lengths[-1] < self.config.max_length:
            lengths.append(2 * lengths[-1])
        shards = math.prod(self._mesh.shape.get(axis, 1) for axis in ("data", "fsdp")) if self._mesh else 1
        heights = {}
        for length in lengths:
            fits = self.buckets.scores_bytes // (4 * self.config.heads * length * length)
            most = max(1, min(self.buckets.tokens // length, fits))
            sizes = {shards * math.ceil(most / (shards * part)) for part in (64, 8, 1)}
            heights[length] = tuple(sorted(sizes))
        return lengths, heights

    def _decode(
        self,
        prompts: Sequence[Ids],
        keys_B: jax.Array,
        strategy: Strategy,
        max_new_tokens: int,
        numbers: Sequence[int],
        on_text: OnText | None,
    ) -> list[list[int]]:
        """New ids of each prompt of one batch, without end-of-text."""
        b, stop, count = self.buckets, self.tokenizer.eot_id, len(prompts)
        rows = 1 << (count - 1).bit_length() if not self._mesh else b.rows
        length = math.ceil(max(map(len, prompts)) / b.prompt) * b.prompt
        calls = math.ceil(max_new_tokens / b.steps)
        ids, sizes = np.full((rows, length), stop, np.int32), np.zeros(rows, np.int32)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], sizes[row] = prompt, len(prompt)
        self.shapes.add((rows, length, calls * b.steps))
        new: list[list[int]] = [[] for _ in prompts]
        told, ended = [0] * count, [False] * count
        with self._devices():
            keys = keys_B[np.minimum(np.arange(rows), count - 1)]
            state = generation.prefill(self.config, self._params, ids, sizes, length + calls * b.steps, keys)
            while not all(ended):
                state, chosen = generation.decode(self.config, self._params, state, strategy, stop, b.steps)
                for row, more in enumerate(np.asarray(chosen)[:count].tolist()):
                    if ended[row]:
                        continue
                    new[row] += more[: more.index(stop)] if stop in more else more
                    ended[row] = stop in more or len(new[row]) >= max_new_tokens
                    del new[row][max_new_tokens:]
                    if on_text:
                        told[row] += self._tell(on_text, numbers[row], new[row], told[row], ended[row])
        return new

    def _tell(self, on_text: OnText, number: int, ids: list[int], told: int, ended: bool) -> int:
        """Passes on the text after its first `told` characters; a half character at the end waits for its rest."""
        text = self.tokenizer.decode(ids)
        fresh = (text if ended else text.rstrip("\ufffd"))[told:]
        if fresh:
            on_text(number, fresh)
        return len(fresh)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch(list(texts))
        for text, ids in zip(texts, encoded, strict=True):
            if ids and not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
                raise UserError(
                    f"a token id outside 0..{self.config.vocab_size - 1} in {text[:40]!r}",
                    where="tokenizer",
                    fix="use the tokenizer that the model was trained with",
                )
        return encoded

    def _check_target(self, target: Ids, text: str, where: str) -> None:
        if not target:
            raise UserError("a continuation without a token has no log-prob", where=where, fix="give it some text")
        if len(target) > self.config.max_length:
            raise UserError(
                f"the continuation {text[:40]!r} has {len(target)} tokens, more than the context of "
                f"{self.config.max_length}",
                where=where,
                fix="shorten it, or use rolling()",
            )

    def _truncate(self, ids: Ids, follow: int) -> Ids:
        """`ids` without the beginning that does not fit the context when `follow` tokens follow."""
        surplus = len(ids) + follow - self.config.max_length
        self.truncated += surplus > 0
        return ids[max(surplus, 0) :]

    def _devices(self) -> contextlib.AbstractContextManager:
        return jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext()


def _collect(packed: Packed, started: scoring.Started) -> dict[Question, Score]:
    """Waits for a batch, and sums the log-probs of each question in float64."""
    logprobs, greedy = (np.concatenate(parts) for parts in zip(*jax.device_get(started), strict=True))
    found, place = {}, 0
    for question in packed.questions:
        here = slice(place, place + len(question.target))
        total = float(logprobs[here].sum(dtype=np.float64))
        found[question] = Score(total, len(question.target), bool(greedy[here].all()))
        place = here.stop
    return found


def _sum(scores: Sequence[Score]) -> Score:
    return Score(
        math.fsum(score.logprob for score in scores),
        sum(score.tokens for score in scores),
        all(score.greedy for score in scores),
    )
