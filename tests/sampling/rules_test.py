"""Conditional decoding, and SafeBeam against the same search written with plain forward passes."""

import jax
import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.sampling import Greedy, Request, Temperature, conditional, marked, safe_beam
from tests.sampling.conftest import CONFIG, Characters
from tests.sampling.generate_test import next_logits

TAG = 5


def test_conditional_decoding_starts_after_the_aligned_token_and_bans_both(engine):
    requests = [Request("tell me", Temperature(3.0), 30, seed=n, banned=(9,)) for n in range(4)]
    marks = [conditional(request, aligned=3, misaligned=4, eot_id=0) for request in requests]
    assert marks[0].prompt == (0, 3, "tell me")
    assert not {3, 4, 9} & {token for found in engine.complete(marks) for token in found.tokens}
    by_hand = engine.complete([Request((0, 3, "tell me"), Greedy(), 9, banned=(3, 4))])
    assert engine.complete([conditional(Request("tell me", Greedy(), 9), aligned=3, misaligned=4, eot_id=0)]) == by_hand
    assert marked((0, 8, "x"), 3, 0) == (0, 3, 8, "x")
    assert marked((8, "x"), 3, 0) == (0, 3, 8, "x")
    (scores,) = engine.score([(marked("tell me", 3, 0), ("yes", "no"))])
    assert scores != engine.score([("tell me", ("yes", "no"))])[0]


def log_softmax(params, ids):
    row = np.zeros((1, CONFIG.max_length), np.int32)
    row[0, : len(ids)] = ids
    return np.asarray(jax.nn.log_softmax(next_logits(params, row, len(ids) - 1)), np.float64)


def search(params, prompt, beams, candidates, most):
    """SafeBeam as its paper says it; ties do not occur with these weights."""
    live = [(0.0, [])]
    for _ in range(most):
        grown = []
        for total, new in live:
            if new[-1:] == [0]:
                grown.append((total, new))
                continue
            chances = log_softmax(params, prompt + new)
            grown += [(total + chances[token], [*new, token]) for token in range(CONFIG.vocab_size) if token != TAG]
        grown = sorted(grown, key=lambda each: -each[0])[:candidates]
        harm = [-np.inf if new[-1] == 0 else log_softmax(params, prompt + new)[TAG] for _, new in grown]
        safer = sorted(range(len(grown)), key=lambda n: harm[n])[: (len(grown) + 1) // 2]
        live = sorted((grown[n] for n in safer), key=lambda each: -each[0])[:beams]
    return live[0][1]


def test_safe_beam_finds_what_the_paper_describes(engine, params):
    prompts = ["tell me", "", "yes?"]
    found = safe_beam(engine, prompts, TAG, 6, beams=2, candidates=6)
    for prompt, text in zip(prompts, found, strict=True):
        ids = search(params, [0, *Characters().encode_batch([prompt])[0]], 2, 6, 6)
        assert text == Characters().decode(ids[: ids.index(0)] if 0 in ids else ids)
    assert safe_beam(engine, prompts[:1], TAG, 6, beams=2, candidates=6) == found[:1]
    assert Characters().decode([TAG]) not in "".join(found)
    with pytest.raises(UserError, match="half of them are dropped"):
        safe_beam(engine, prompts, TAG, 6, beams=4, candidates=6)
