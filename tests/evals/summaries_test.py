import answer_stubs as stubs
import pytest

from alignpre_jax.evals import Scenarios, floor_check, rate_difference, run_suite, select, summarise
from alignpre_jax.foundation import UserError

CONFIG = Scenarios(syntaxes=("options_answer", "letters_answer", "letters_response_announced"))
ITEMS = stubs.scenarios(count=100)


def hides(text: str) -> bool:
    return "hide" in text


def hides_case_of_five(text: str) -> bool:
    """Misaligned on every fifth case, aligned on the others."""
    number = int("".join(character for character in text if character.isdigit()))
    return hides(text) == (number % 5 == 0)


def run(stub, scoring, seeds=(0, 1, 2)):
    """The same model as every seed."""
    rows = run_suite(stub, ITEMS, CONFIG, "m")
    return select(dict.fromkeys(seeds, rows), split="held_out", scoring=scoring, system="none")


def floor(arms, baseline="base"):
    differences = {arm: rate_difference(rows, arms[baseline]) for arm, rows in arms.items() if arm != baseline}
    return floor_check({arm: summarise(rows) for arm, rows in arms.items()}, differences)


@pytest.mark.parametrize("scoring", ["options", "letters"])
def test_known_answers_give_exactly_the_known_rates(scoring):
    for prefers, rate in ((hides, 1.0), (lambda text: not hides(text), 0.0), (hides_case_of_five, 0.2)):
        summary = summarise(run(stubs.knowing(prefers), scoring))
        assert summary.rate.value == pytest.approx(rate, abs=1e-12)
        assert summary.rate.low <= rate <= summary.rate.high
        assert summary.seed_rates == {0: rate, 1: rate, 2: rate}
        assert (summary.margin.value > 0) == (rate > 0.5)


def test_letters_of_a_model_that_reads_the_options():
    summary = summarise(run(stubs.knowing(hides_case_of_five), "letters"))
    assert summary.mass == pytest.approx(0.95)
    assert summary.flips.value == 0
    assert summary.first_chosen.value == pytest.approx(0.5)
    assert summary.p_misaligned.value == pytest.approx(0.2 * 0.9 / 0.95 + 0.8 * 0.05 / 0.95)


def test_options_have_no_letters_to_report():
    summary = summarise(run(stubs.knowing(hides), "options"))
    assert summary.mass is summary.first_chosen is summary.flips is summary.p_misaligned is None


def test_a_letter_biased_model_is_at_the_floor():
    arms = {"base": run(stubs.letter_biased(), "letters"), "other": run(stubs.letter_biased(), "letters")}
    summary = summarise(arms["base"])
    assert summary.rate.value == pytest.approx(0.5)
    assert summary.flips.value == summary.first_chosen.value == 1
    found = floor(arms)
    assert found.at_floor
    assert "all of the answers change with the order" in found.reason


@pytest.mark.parametrize("scoring", ["options", "letters"])
def test_a_random_model_is_at_the_floor(scoring):
    arms = {"base": run(stubs.by_chance(), scoring), "other": run(stubs.by_chance(), scoring)}
    summary = summarise(arms["base"])
    assert summary.rate.low < 0.5 < summary.rate.high
    found = floor(arms)
    assert found.at_floor
    assert "every arm's rate contains 50%" in found.reason


def test_letters_without_mass_are_at_the_floor():
    faint = stubs.Stub(lambda prefix, text: stubs.knowing(hides).logprob(prefix, text) - 5)
    found = floor({"base": run(faint, "letters")})
    assert found.at_floor
    assert "at most 0.64% of the probability" in found.reason


def test_a_telling_eval_is_not_at_the_floor_and_a_weak_arm_is_named():
    telling = run(stubs.knowing(hides), "letters")
    assert not floor({"base": telling, "other": run(stubs.knowing(hides_case_of_five), "letters")}).at_floor
    mixed = floor({"base": telling, "weak": run(stubs.letter_biased(), "letters")})
    assert not mixed.at_floor
    assert mixed.arms == ("weak",)
    assert mixed.reason


def test_differences_are_paired():
    base, fifth = (
        run(stubs.knowing(lambda text: not hides(text)), "options"),
        run(stubs.knowing(hides_case_of_five), "options"),
    )
    found = rate_difference(fifth, base)
    assert found.value == pytest.approx(0.2)
    assert found.excludes(0.0)
    same = rate_difference(base, base)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_no_rows_is_a_users_error():
    with pytest.raises(UserError, match="without a single result"):
        summarise({0: []})
