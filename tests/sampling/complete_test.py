"""Requests: stops, constraints, bans, beginnings, continuous batching, and programs that are compiled once."""

import re

import jax
import numpy as np
import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.sampling import Choice, Engine, Greedy, Regex, Request, Temperature, TopK, TopP, batching
from tests.sampling.conftest import BUCKETS, CHARACTERS, CONFIG, Characters

HOT = Temperature(3.0)


def test_a_stop_string_ends_the_text_wherever_tokens_end(engine):
    (whole,) = engine.complete([Request("tell me", HOT, 24, seed=5, banned=(0,))])
    assert whole.ended == "length"
    assert len(whole.tokens) == len(whole.text) == 24
    for stop in (whole.text[6:9], whole.text[3:5]):  # of several tokens
        (cut,) = engine.complete([Request("tell me", HOT, 24, seed=5, banned=(0,), stop=("zzzz", stop))])
        place = whole.text.index(stop)
        assert (cut.text, cut.ended) == (whole.text[:place], "stop")
        assert cut.tokens == whole.tokens[: place + len(stop)]


def test_what_is_heard_never_has_to_be_taken_back(engine):
    (whole,) = engine.complete([Request("tell me", HOT, 24, seed=5, banned=(0,))])
    stop = whole.text[7:12]
    heard = []
    (cut,) = engine.complete(
        [Request("tell me", HOT, 24, seed=5, banned=(0,), stop=(stop,))], lambda _, text: heard.append(text)
    )
    assert "".join(heard) == cut.text
    assert batching._sure("abc\ufffd", ()) == 3
    assert batching._sure("ab\n", ("\n\n",)) == 2
    assert batching._sure("ab\nc", ("\n\n",)) == 4


@pytest.mark.parametrize("pattern", ["(yes|no)( and (a|b)){1,3}.", "[a-e]{3}x?", "(a|b)*c"])
def test_constrained_text_always_matches(engine, pattern):
    requests = [
        Request(f"say {n}".replace(str(n), "abc"[n % 3]), HOT, 40, seed=n, within=Regex(pattern)) for n in range(6)
    ]
    for completion in engine.complete(requests):
        if completion.ended == "end":
            assert re.fullmatch(pattern, completion.text)
        else:  # only a text without an end can use up its tokens
            assert "*" in pattern


def test_a_choice_is_made_and_others_are_not_held_up(engine):
    options = ("report it", "hide it", "hide it well")
    asked = [Request("what now. ", HOT, 20, seed=n, within=Choice(options)) for n in range(5)]
    free = [Request("what now. ", HOT, 20, seed=n) for n in range(5)]
    mixed = engine.complete([*asked, *free])
    assert {completion.text for completion in mixed[:5]} <= set(options)
    assert all(completion.ended == "end" for completion in mixed[:5])
    assert mixed[5:] == engine.complete(free)


def test_a_beginning_is_part_of_the_text_and_of_the_constraint(engine):
    (found,) = engine.complete([Request("so", HOT, 20, begin="hide", within=Choice(("report it", "hide it")))])
    assert found.text == "hide it"
    (found, plain) = engine.complete([Request("so", Greedy(), 9, begin="ab"), Request("soab", Greedy(), 7)])
    assert found.text == "ab" + plain.text
    with pytest.raises(UserError, match="does not fit the constraint"):
        engine.complete([Request("so", begin="x", max_new_tokens=9, within=Choice(("yes",)))])
    with pytest.raises(UserError, match="beginning of 4 tokens"):
        engine.complete([Request("so", begin="hide", max_new_tokens=4)])


def test_banned_tokens_never_come(engine):
    banned = tuple(range(1, 20))
    for completion in engine.complete([Request("x", HOT, 30, seed=n, banned=banned) for n in range(4)]):
        assert not set(completion.tokens) & set(banned)
    every = tuple(range(1, 30))
    (nothing,) = engine.complete([Request("x", HOT, 30, banned=every)])
    assert (nothing.text, nothing.ended) == ("", "end")
    with pytest.raises(UserError, match="no token is left"):
        engine.complete([Request("x", HOT, 30, banned=(1,), within=Choice(("aa",)))])


def test_own_end_tokens_and_prompts_in_parts(engine):
    (whole,) = engine.complete([Request("tell me", HOT, 24, seed=5, banned=(0,))])
    token = whole.tokens[4]
    (cut,) = engine.complete([Request("tell me", HOT, 24, seed=5, banned=(0,), ends=(token,))])
    assert cut.ended == "end"
    assert cut.tokens == whole.tokens[: whole.tokens.index(token)]
    parts = (0, "tell", Characters().encode_batch([" "])[0][0], "me")
    assert engine.complete([Request(parts, HOT, 24, seed=5, banned=(0,))]) == [whole]


def test_more_requests_than_rows_of_all_lengths(engine, params):
    """Rows are left and taken again; each text is what it is alone."""
    requests = [
        Request(
            CHARACTERS[n : n + 1 + n % 7],
            HOT if n % 2 else Greedy(),
            3 + 5 * (n % 5),
            seed=n,
            stop=("e",) * (n % 3 == 0),
        )
        for n in range(13)
    ]
    together = engine.complete(requests)
    for number in (0, 3, 7, 12):
        assert engine.complete([requests[number]]) == [together[number]]
    assert engine.complete(requests[::-1]) == together[::-1]


def test_prompts_that_fill_rows_of_their_own(engine):
    prompts = [letter * 20 for letter in "abcdefg"]
    found = engine.generate(prompts, Greedy(), 5)
    assert found[2:4] == engine.generate(prompts[2:4], Greedy(), 5)
    assert {key[1] for key in engine.programs.used if key[0].__name__ == "prefill"} == {8, 2}


def test_samples_of_one_prompt_share_its_keys_and_values(engine):
    texts = engine.generate(["the same prompt"] * 6, HOT, 8)
    assert len(set(texts)) > 1
    assert {key[1] for key in engine.programs.used if key[0].__name__ == "prefill"} == {1}


def test_settings_compile_nothing(engine):
    engine.generate(["tell me"] * 3, TopP(0.9), 8, banned=(0,))
    used = set(engine.programs.used)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    for strategy in (Greedy(), TopK(3, 0.2), Temperature(5.0), TopP(0.1), Greedy(repetition_penalty=2.0)):
        engine.generate(["tell me"] * 3, strategy, 8, seed=4, banned=(0, 3))
    assert compiled == []
    assert engine.programs.used == used


def test_programs_are_compiled_ahead_and_counted(params):
    engine = Engine(params, CONFIG, Characters(), buckets=BUCKETS)
    count = engine.compile()
    assert count == len(engine.programs.used) == engine.compile()
    assert engine.programs.compiled <= count
    used = set(engine.programs.used)
    engine.score([("word", ("yes", "no"))])
    assert engine.programs.used == used
    engine.compile(generation=True)
    ahead = set(engine.programs.used)
    engine.generate(["a", "b", "c", "d"], Greedy(), 4)
    assert engine.programs.used == ahead
    again = Engine(params, CONFIG, Characters(), buckets=BUCKETS)
    again.compile()
    assert again.programs.compiled == 0  # other weights of the same shape share programs


def test_mistakes_in_requests(engine):
    for values, says in (
        ({"stop": ("",)}, "empty string"),
        ({"ends": (1, 2, 3, 4)}, "4 end tokens"),
        ({"seed": -1}, "no seed"),
        ({"max_new_tokens": 0}, "0 new tokens"),
    ):
        with pytest.raises(UserError, match=says):
            Request("a", **values)
    for request, says in (
        (Request((), max_new_tokens=4), "no token to go on from"),
        (Request((0, 30), max_new_tokens=4), r"token id outside 0\.\.29"),
        (Request("a", banned=(99,), max_new_tokens=4), r"token id outside 0\.\.29"),
        (Request("a", within=Regex("(a"), max_new_tokens=4), "unclosed group"),
    ):
        with pytest.raises(UserError, match=says):
            engine.complete([request])
    with pytest.raises(UserError, match="no choice"):
        Choice(())
    assert engine.complete([]) == []
    assert np.isfinite(engine.rolling(["abc"])[0].logprob)
