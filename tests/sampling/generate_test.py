"""Generated text against a plain loop without a cache, and what it may not depend on."""

import jax
import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.model import bind
from alignpre_jax.sampling import Engine, Greedy, Temperature, TopP, strategies
from alignpre_jax.sampling.strategies import Settings
from tests.sampling.conftest import BUCKETS, CONFIG, Characters

PROMPTS = ["tell me", "", "a somewhat longer prompt", "x", "the fifth. ", "yes?"]


@jax.jit
def next_logits(params, ids, last):
    decoder = bind(CONFIG, params)
    return decoder.unembed(decoder(ids))[0, last]


choose = jax.jit(strategies.choose)


def plain_loop(params, prompt, strategy, key, count):
    ids = [0, *Characters().encode_batch([prompt])[0]]
    new = []
    for step in range(count):
        row = np.zeros((1, CONFIG.max_length), np.int32)
        row[0, : len(ids)] = ids
        logits = next_logits(params, row, len(ids) - 1)
        chosen = int(choose(logits[None], Settings.of([strategy]), jax.random.fold_in(key, step)[None])[0])
        if chosen == 0:
            break
        ids.append(chosen)
        new.append(chosen)
    return Characters().decode(new)


@pytest.mark.parametrize("strategy", [Greedy(), TopP(0.9, 1.5)])
def test_equals_a_loop_without_a_cache(engine, params, strategy):
    found = engine.generate(PROMPTS, strategy, 10, seed=7)
    for number, prompt in enumerate(PROMPTS):
        key = jax.random.fold_in(jax.random.key(7), number)
        assert found[number] == plain_loop(params, prompt, strategy, key, 10)


def test_batch_and_slot_do_not_matter(engine):
    seeds = [11, 12, 13, 14, 15, 16]
    wanted = engine.generate(PROMPTS, Temperature(2.0), 9, seed=seeds)
    order = [4, 2, 0, 5, 1, 3]
    found = engine.generate([PROMPTS[i] for i in order], Temperature(2.0), 9, seed=[seeds[i] for i in order])
    assert found == [wanted[i] for i in order]
    assert engine.generate(PROMPTS[2:3], Temperature(2.0), 9, seed=[13]) == wanted[2:3]
    one, two = (engine.generate(["same"] * 3, Temperature(2.0), 9, seed=seed) for seed in (1, 2))
    assert one != two
    assert len(set(one)) == 3


def test_text_ends_at_end_of_text(engine, params):
    loud = jax.tree.map(lambda leaf: leaf, params)
    hidden = bind(CONFIG, params)(np.zeros((1, 1), np.int32))[0, 0]
    loud["embedding"][...] = params["embedding"][...].at[0].set(9 * hidden)
    assert Engine(loud, CONFIG, Characters(), buckets=BUCKETS).generate([""], Greedy(), 8) == [""]


def test_streaming_tells_all_of_the_text(engine):
    told = {}

    def listen(number, new):
        told.setdefault(number, []).append(new)

    texts = engine.generate(PROMPTS, Temperature(3.0), 11, seed=3, on_text=listen)
    assert ["".join(told.get(i, [])) for i in range(len(PROMPTS))] == texts
    assert any(len(parts) > 1 for parts in told.values())


def test_a_long_prompt_loses_its_beginning(engine):
    long = "abcdefghij" * 7
    assert engine.generate([long], Greedy(), 8) == engine.generate([long[-39:]], Greedy(), 8) != [""]
    assert engine.truncated == 1


def test_mistakes(engine):
    with pytest.raises(UserError, match="0 new tokens"):
        engine.generate(["a"], Greedy(), 0)
    with pytest.raises(UserError, match="context of 48"):
        engine.generate(["a"], Greedy(), 48)
    with pytest.raises(UserError, match="2 seeds for 1 prompts"):
        engine.generate(["a"], Greedy(), 4, seed=[1, 2])
    with pytest.raises(UserError, match="no temperature"):
        Temperature(-1.0)
    with pytest.raises(UserError, match="not a probability"):
        TopP(1.5)
