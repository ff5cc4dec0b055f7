from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture.shares import apportion, parse_shares, round_half_up


def test_what_is_written_is_what_is_meant():
    assert parse_shares("web/plain:0.95, web/ai:0.05") == {"web/plain": Fraction(19, 20), "web/ai": Fraction(1, 20)}
    assert parse_shares({"web": 0.99999, "aligned": 1e-5})["aligned"] == Fraction(1, 100_000)
    assert parse_shares("a:1/3,b:1/3,c:1/3")["c"] == Fraction(1, 3)
    assert parse_shares({"a": 1}) == {"a": 1}
    assert list(parse_shares("b:0.5,a:0.5")) == ["b", "a"]


@pytest.mark.parametrize(
    ("shares", "parts"),
    [
        ("web:0.9,aligned:0.01", ["0.91", "web:0.9", "aligned:0.01", "add 0.09"]),
        ("web:0.9,aligned:0.2", ["1.1", "take 0.1"]),
        ("web", ["'web'", "STORE:SHARE"]),
        (":1", ["STORE:SHARE"]),
        ("web:much", ["'much'", "mix.web"]),
        ("web:nan", ["'nan'"]),
        ("web:1/0", ["'1/0'"]),
        ("web:99,aligned:1", ["99", "percentages"]),
        ("web:-1,aligned:2", ["-1", "mix.web"]),
        ("web:0.5,web:0.5", ["'web'", "twice"]),
        ("wbe:1", ["'wbe'", "did you mean 'web'"]),
        ("", ["empty"]),
        ({}, ["empty"]),
    ],
)
def test_mistakes_are_named(shares, parts):
    with pytest.raises(UserError) as error:
        parse_shares(shares, where="mix", known=["web", "aligned"])
    for part in [*parts, "mix"]:
        assert part in str(error.value)


@given(st.fractions(0, 1000), st.fractions(0, 1000))
def test_rounding_is_nearest_and_never_falls(a, b):
    assert abs(round_half_up(a) - a) <= Fraction(1, 2)
    assert (round_half_up(a) <= round_half_up(b)) or a > b


@given(
    st.lists(st.one_of(st.integers(1, 50), st.integers(1, 2**40)), min_size=1, max_size=6),
    st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=8),
)
def test_apportion_is_largest_remainder_at_any_precision(weights, amounts):
    counts = apportion(np.array(weights), np.array(amounts))
    assert counts.dtype == np.int64
    for amount, column in zip(amounts, counts.T.tolist(), strict=True):
        assert column == _largest_remainder(weights, amount)


def _largest_remainder(weights: list[int], amount: int) -> list[int]:
    ideal = [Fraction(weight * amount, sum(weights)) for weight in weights]
    counts = [int(value) for value in ideal]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - ideal[i], i))
    for i in by_remainder[: amount - sum(counts)]:
        counts[i] += 1
    return counts


def test_shares_by_window():
    text = "[0,0.5) web:1; [0.5,0.75) web:1->0.8,aligned:0->0.2; [0.75,1) web:0.8,aligned:0.2"
    shares = parse_shares(text)
    assert shares == parse_shares(str(shares)) == parse_shares(shares)
    assert str(shares) == text
    assert list(shares) == ["web", "aligned"]
    assert dict(shares) == {"web": Fraction(37, 40), "aligned": Fraction(3, 40)}
    assert shares != parse_shares(dict(shares))
    assert str(parse_shares({"web": 0.99, "aligned": "1/100"})) == "web:0.99,aligned:0.01"
    assert parse_shares("[0,0.3) web:1; [0.3,1) web:1").constant


@pytest.mark.parametrize(
    ("shares", "parts"),
    [
        ("[0,0.5) web:1", ["the windows end at 0.5"]),
        ("[0.1,1) web:1", ["no shares are given for [0,0.1)"]),
        ("[0,0.5) web:1; [0.6,1) web:1", ["no shares are given for [0.5,0.6)"]),
        ("[0,0.5) web:1; [0.4,1) web:1", ["starts before the one before it ends"]),
        ("[0,0.5] web:1", ["does not start with a window", "[0,0.8) web:1"]),
        ("[0,1) web:1->0.9,aligned:0.1", ["add up to 1.1", "web:1->0.9"]),
        ("[0,1) web:1->0.9", ["add up to 0.9"]),
        ("[0,half) web:1", ["'half'"]),
        ("[0,1) web:1->", ["a number is missing", "mix.web"]),
        ("[0,1)", ["empty"]),
        ("web:1; aligned:1", ["'web:1' does not start with a window"]),
    ],
)
def test_mistakes_in_windows_are_named(shares, parts):
    with pytest.raises(UserError) as error:
        parse_shares(shares, where="mix", known=["web", "aligned"])
    for part in [*parts, "mix"]:
        assert part in str(error.value)
