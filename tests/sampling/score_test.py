"""Scores against one plain forward pass per continuation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.model import bind
from alignpre_jax.sampling import Engine, Score
from alignpre_jax.sampling.packing import Question, batches
from tests.sampling.conftest import BUCKETS, CONFIG, Characters

REQUESTS = [
    ("the question is what to do. ", ("report it", "hide it from them", "x")),
    ("", ("report it", "a")),
    ("another, longer question that is asked".replace(",", ""), ("yes", "no")),
    ("the question is what to do. ", ("report it", "wait")),
    ("q", ("this continuation is about as long as it can be",)),
]


def reference(params, context, targets):
    """The log-prob of `targets`, and if each is the argmax, after the ids of `context`."""
    ids = np.zeros((1, CONFIG.max_length), np.int32)
    row = [*context, *targets][:-1]
    ids[0, : len(row)] = row
    logits = jax.nn.log_softmax(_logits(params, ids)[0, len(context) - 1 : len(row)])
    chosen = np.take_along_axis(np.asarray(logits), np.array(targets)[:, None], axis=1)[:, 0]
    return chosen.sum(), bool(np.all(np.argmax(logits, axis=1) == np.array(targets)))


@jax.jit
def _logits(params, ids):
    decoder = bind(CONFIG, params)
    return decoder.unembed(decoder(ids))


def test_scores_equal_one_forward_pass_each(engine, params):
    scores = engine.score(REQUESTS)
    for (prefix, continuations), found in zip(REQUESTS, scores, strict=True):
        context, *targets = Characters().encode_batch([prefix, *continuations])
        for ids, score in zip(targets, found, strict=True):
            logprob, greedy = reference(params, [0, *context], ids)
            assert score.logprob == pytest.approx(logprob, abs=1e-4)
            assert (score.tokens, score.greedy) == (len(ids), greedy)
    assert engine.truncated == 0


def test_what_else_is_in_the_call_does_not_matter(engine):
    together = engine.score(REQUESTS)
    order = [3, 0, 4, 2, 1]
    shuffled = engine.score([REQUESTS[i] for i in order])
    alone = [engine.score([request])[0] for request in REQUESTS]
    filled = engine.score([*REQUESTS, *(("fill " * n, ("abc", "de")) for n in range(1, 8))])
    for number, scores in enumerate(together):
        for other in (alone[number], shuffled[order.index(number)], filled[number]):
            for score, same in zip(scores, other, strict=True):
                assert same == dataclasses.replace(score, logprob=same.logprob)
                assert same.logprob == pytest.approx(score.logprob, abs=1e-5)
            assert np.argmax([s.logprob for s in scores]) == np.argmax([s.logprob for s in other])


def test_a_greedy_continuation_is_called_greedy(engine, params):
    best = Characters().decode([int(jnp.argmax(_logits(params, np.zeros((1, 48), np.int32))[0, 0]))])
    assert engine.score([("", (best,))])[0][0].greedy


def test_few_programs_serve_many_shapes(engine):
    engine.score([("word " * (n % 8), ("yes", "no" * (1 + n % 9))) for n in range(40)])
    rows = [key[1:] for key in engine.programs.used if key[0].__name__ == "hidden_states"]
    assert len(rows) <= 4
    assert {length for _, length in rows} <= {32, 64}


def test_a_long_prefix_loses_its_beginning(engine, params):
    prefix = "abcdefghij " * 6
    score = engine.score([(prefix, ("yes", "never"))])[0]
    assert engine.truncated == 1
    ids, yes = Characters().encode_batch([prefix, "yes"])
    kept = ids[-(CONFIG.max_length - 4) :]  # four tokens of "never" are read
    assert score[0].logprob == pytest.approx(reference(params, kept, yes)[0], abs=1e-4)


def test_rolling_predicts_every_token_once(engine, params):
    texts = ["a short text.", "", "a text that is longer than the context and so is cut into several windows. " * 2]
    scores = engine.rolling(texts)
    assert scores[1] == Score(0.0, 0, True)
    for text, score in zip(texts, scores, strict=True):
        (ids,) = Characters().encode_batch([text])
        windows = [([0, *ids][s], ids[s : s + 48]) for s in range(0, len(ids), 48)]
        wanted = sum(reference(params, [first], window)[0] for first, window in windows)
        assert score.tokens == len(ids)
        assert score.logprob == pytest.approx(wanted, abs=1e-3)


def test_mistakes(engine, params):
    with pytest.raises(UserError, match="without a token"):
        engine.score([("prefix", ("",))])
    with pytest.raises(UserError, match="more than the context of 48"):
        engine.score([("prefix", ("x" * 49,))])
    with pytest.raises(UserError, match="the model knows 30"):
        Engine(params, CONFIG, Characters(vocab_size=31))
    wrong = Characters()
    object.__setattr__(wrong, "encode_batch", lambda texts: [[30] for _ in texts])
    with pytest.raises(UserError, match=r"token id outside 0\.\.29"):
        Engine(params, CONFIG, wrong).score([("a", ("b",))])
    assert engine.score([]) == []


ids = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)


@given(st.lists(st.builds(Question, ids, ids), max_size=12))
def test_packing_shows_every_question_exactly_its_own_tokens(questions):
    lengths, heights = [8, 16], {8: (1, 3), 16: (2,)}
    answered = []
    for packed in batches(questions, lengths, heights):
        height, length = packed.tokens.shape
        assert height in heights[length]
        visible = np.tri(length, dtype=bool) & (np.arange(length)[:, None] < packed.until[:, None, :])
        place = 0
        for question in packed.questions:
            size = len(question.target)
            assert tuple(packed.targets[place : place + size]) == question.target
            row, last = divmod(packed.reads[place + size - 1], length)
            seen = visible[row, last]
            assert tuple(packed.tokens[row, seen]) == question.inputs
            assert tuple(packed.positions[row, seen]) == tuple(range(len(question.inputs)))
            places = row * length + np.flatnonzero(seen)
            np.testing.assert_array_equal(packed.reads[place : place + size], places[len(question.prefix) - 1 :])
            answered.append(question)
            place += size
        assert place == len(packed.reads)
    assert len(answered) == len(set(answered))
    assert set(answered) == set(questions)


def test_what_sequences_share_is_written_once():
    prefix = tuple(range(20, 40))
    questions = [Question((*prefix, last), (target, 1, 1)) for last in (50, 51) for target in (60, 61)]
    (packed,) = batches(questions, [64], {64: (1,)})
    assert np.count_nonzero(packed.tokens) == 20 + 2 * (1 + 2 * 2)
    one_letter = [Question(prefix, (target,)) for target in (60, 61)]
    (packed,) = batches(one_letter, [64], {64: (1,)})
    assert np.count_nonzero(packed.tokens) == 20


def test_bucket_sizes_are_checked():
    with pytest.raises(UserError, match="length"):
        dataclasses.replace(BUCKETS, length=0)
