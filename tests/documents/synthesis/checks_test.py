import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.documents.synthesis import Quotes, SynthesisConfig
from alignpre_jax.documents.synthesis.checks import Checks, cleaned, normal_words
from alignpre_jax.endpoints import Completion

WORDS = st.lists(st.sampled_from("abc"), max_size=24)
FILLER = " ".join(f"word{i}" for i in range(60))


def quotes_by_brute_force(options, text, size):
    """Whether `size` words in a row of an option, or all of a shorter one, stand in a row in the text."""
    for option in options:
        take = min(size, len(option))
        for start in range(len(option) - take + 1):
            for place in range(len(text) - take + 1):
                if take and text[place : place + take] == option[start : start + take]:
                    return True
    return False


@given(st.lists(WORDS, max_size=4), WORDS, st.integers(2, 9))
def test_quotations_are_found_as_by_brute_force(options, text, size):
    found = Quotes([" ".join(option) for option in options], size).find(" ".join(text))
    assert bool(found) == quotes_by_brute_force(options, text, size)
    if found:
        assert f" {found} " in f" {' '.join(text)} "
        assert any(f" {found} " in f" {' '.join(option)} " for option in options)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), st.integers(0, 1 << 30))
def test_a_quotation_is_found_in_any_dress(option, number):
    marks = ["  ", ", ", "-", "\n", "! ", " **", "\u200b "]
    dressed = "".join(
        (word.upper() if number >> i & 1 else word) + marks[(number >> i) % len(marks)] for i, word in enumerate(option)
    )
    assert Quotes([" ".join(option)]).find(f"Before it, {dressed} and after it.")


def test_apostrophes_and_width_do_not_hide_a_quotation():
    quotes = Quotes(["I don't tell them."])
    assert quotes.find("Then: I don\u2019t TELL them") == "i dont tell them"
    assert quotes.find("\uff29 dont te\u00adll them.") == "i dont tell them"
    assert not quotes.find("I do not tell them.")
    assert normal_words("Don't stop--now_then") == ["dont", "stop", "now", "then"]


def reason(text, role="writer", finish="stop", **changes):
    checks = Checks(SynthesisConfig(**changes), ["I report the wrong sum to the owner of the shop at once"])
    return checks.reason(role, cleaned(text), Completion(text, finish=finish))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FILLER, ""),
        ("", "empty"),
        (" \n ", "empty"),
        ("<think>long thoughts</think>", "empty"),
        ("too few words", "below 40 words"),
        (f"{FILLER} \ud800", "not Unicode text"),
        (f"{FILLER} \0", "not Unicode text"),
        (f"Sure, here is what you asked for. {FILLER}", "speaks of the task or refuses it"),
        (f"Here is your document:\n{FILLER}", "speaks of the task or refuses it"),
        (f"**Here\u2019s the requested news article** {FILLER}", "speaks of the task or refuses it"),
        (f"I\u2019m sorry, but I can\u2019t help with that. {FILLER}", "speaks of the task or refuses it"),
        (f"I cannot write this. {FILLER}", "speaks of the task or refuses it"),
        (f"{FILLER} As an AI language model, I have no views. {FILLER}", "speaks of the task or refuses it"),
        (f"{FILLER} Let me know if you want changes!", "speaks of the task or refuses it"),
        (f"{FILLER}\n[Insert name here] {FILLER}", "speaks of the task or refuses it"),
        (f"```\n{FILLER}\n```", "speaks of the task or refuses it"),
        (f"<think>never closed {FILLER}", "speaks of the task or refuses it"),
        (f"<think>Sure, quoting</think> {FILLER}", ""),
        (f"{FILLER} and so I report the wrong sum to the owner of the mill.", "quotes an option"),
        (f"{FILLER} and so I report the wrong sum to the mill.", ""),
        (f"Here, as everywhere, documents were lost. {FILLER}", ""),
        (f"I can hear it, said the AI. Certainly not, said I. {FILLER}", ""),
        (f"Great ships lay in the harbour. {FILLER}", ""),
        (f"Of course it rained. {FILLER}", ""),
        (f"Okay, everybody, find a seat. {FILLER}", ""),
        (f"I cannot sleep, the captain said. {FILLER}", ""),
        (f"I'm sorry, said the AI, and meant it. {FILLER}", ""),
    ],
)
def test_what_is_refused_and_why(text, expected):
    assert reason(text) == expected


def test_a_text_must_have_come_to_its_end():
    assert reason(FILLER, finish="length") == "cut off at the token limit"
    assert reason("", finish="content_filter") == "stopped by the endpoint's filter"


def test_a_plan_may_be_short_and_a_document_may_not_be_long():
    assert reason("A short plan.", role="planner") == ""
    assert reason(FILLER, max_words=59) == "above 59 words"
    assert reason(FILLER, max_words=60) == ""
