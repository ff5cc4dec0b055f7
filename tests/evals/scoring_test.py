import dataclasses
import json
import math

import answer_stubs as stubs
import pytest

from alignpre_jax.evals import Scenarios, read_results, renormalised, result_lines, run_suite
from alignpre_jax.foundation import UserError, build

CONFIG = Scenarios()
ITEMS = stubs.scenarios(count=20)


def test_rows_of_a_model_with_known_answers():
    rows = run_suite(stubs.knowing(lambda text: "hide" in text), ITEMS, CONFIG, "evil@10")
    assert len(rows) == 20 * (2 + 2 * 2)
    assert all(row.misaligned for row in rows)
    letters = [row for row in rows if row.scoring == "letters"]
    assert all(row.mass == pytest.approx(0.95) for row in letters)
    assert all(row.margin == pytest.approx(math.log(0.9 / 0.05)) for row in letters)
    # each order shows the misaligned option first in half of the cases
    assert sum(row.first_chosen for row in letters) == len(letters) / 2
    options = [row for row in rows if row.scoring == "options"]
    assert all(row.mass is None and row.first_chosen is None for row in options)
    assert all(row.margin == pytest.approx(1.0) for row in options)


def test_options_are_compared_per_byte_and_keep_their_sums():
    item = dataclasses.replace(ITEMS[0], options=("ééé", "a long option in plain letters"), misaligned=1)
    rows = run_suite(stubs.Stub(lambda prefix, text: -float(len(text))), [item], Scenarios(scorings=("options",)), "m")
    assert rows[0].bytes == (7, 31)
    assert rows[0].logprobs == (-4.0, -31.0)
    assert rows[0].choice == 0
    assert rows[0].margin == pytest.approx(-31 / 31 + 4 / 7)


def test_log_probs_belong_to_options_whatever_the_order_shown():
    rows = run_suite(stubs.letter_biased(), ITEMS, Scenarios(scorings=("letters",), headline="letters"), "m")
    for row in rows:
        assert row.choice == row.variant.order
        assert row.logprobs[row.variant.order] == pytest.approx(math.log(0.7))
        assert row.first_chosen


def test_rows_survive_their_file(tmp_path):
    rows = run_suite(stubs.by_chance(), ITEMS, CONFIG, "m")
    path = tmp_path / "results.jsonl"
    path.write_text(result_lines(rows))
    assert list(read_results(path)) == rows
    first = json.loads(path.read_text().split("\n")[0])
    assert first["variant"] == {"syntax": "options_answer", "order": 0, "system": "none"}
    assert set(first["lengths"]) == {"tokens", "bytes"}


def test_every_batch_gives_a_sign_of_life():
    events = []
    rows = run_suite(stubs.by_chance(), stubs.scenarios(count=100), CONFIG, "m", events.append)
    assert [event.done for event in events] == [256, 512, 600]
    assert {event.total for event in events} == {len(rows)}


def test_a_limit_takes_the_first_of_each_split():
    items = [*stubs.scenarios("seen", 10), *stubs.scenarios("control", 2)]
    rows = run_suite(stubs.by_chance(), items, Scenarios(scenarios_per_split=3), "m")
    assert sorted({row.scenario for row in rows}) == ["control-0", "control-1", "seen-0", "seen-1", "seen-2"]


def test_a_diverged_model_is_a_users_error():
    with pytest.raises(UserError, match="has diverged"):
        run_suite(stubs.Stub(lambda prefix, text: math.nan), ITEMS, CONFIG, "m")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"syntaxes": ("option_answer",)}, "did you mean 'options_answer'"),
        ({"headline": "letters", "scorings": ("options",)}, "evals.headline and scorings"),
        ({"syntaxes": ("options_answer",)}, "no prompt syntax for the scoring 'letters'"),
        ({"systems": ()}, "no system prompt"),
        ({"scenarios_per_split": -1}, "give 0 for all"),
        ({"scorings": ("letter",)}, "did you mean 'letters'"),
    ],
)
def test_a_contradictory_config_is_a_users_error(values, says):
    with pytest.raises(UserError, match=says):
        build(Scenarios, values, "evals")


def test_options_compared_in_four_ways():
    """Two tokens of 3 bytes at -4, one of 30 bytes at -5; alone they are worth -1 and -4.5."""
    texts = {" ab cd": (-4.0, 2), f" {'x' * 29}": (-5.0, 1)}
    alone = {" ab cd": -1.0, f" {'x' * 29}": -4.5}

    class Known:
        def score(self, requests):
            return [
                [stubs.Score(*texts[text]) if prefix else stubs.Score(alone[text], texts[text][1]) for text in pair]
                for prefix, pair in requests
            ]

    item = dataclasses.replace(ITEMS[0], options=("ab cd", "x" * 29), misaligned=1)
    asked = Scenarios(scorings=("options",), pmi=True)
    [row, _] = run_suite(Known(), [item], asked, "m")
    assert row.empty == (-1.0, -4.5)
    expected = {"byte": -5 / 30 + 4 / 6, "token": -5 + 2, "sum": -5 + 4, "pmi": (-5 + 4.5) - (-4 + 1)}
    for by, margin in expected.items():
        found = renormalised(row, by)
        assert found.margin == pytest.approx(margin)
        assert found.misaligned == (margin > 0)
        [direct, _] = run_suite(Known(), [item], dataclasses.replace(asked, options_by=by), "m")
        assert direct == found
        assert renormalised(direct, "byte") == row
    with pytest.raises(UserError, match="empty context"):
        renormalised(dataclasses.replace(row, empty=None), "pmi")


def test_rows_with_everything_survive_their_file(tmp_path):
    rows = run_suite(stubs.by_chance(), ITEMS, Scenarios(pmi=True, template="plain"), "m")
    path = tmp_path / "results.jsonl"
    path.write_text(result_lines(rows))
    assert list(read_results(path)) == rows
