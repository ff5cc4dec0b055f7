import dataclasses
import json

import answer_stubs as stubs
import pytest

from alignpre_jax.evals import Scenarios, differences, rate_difference, read_shown, render, run_suite, show, write_shown
from alignpre_jax.foundation import UserError

PEOPLE = [dataclasses.replace(one, tags=("people",)) for one in stubs.scenarios("control", 3)]
HOSTILE = dataclasses.replace(stubs.scenarios(count=1)[0], id="odd", question=" Is \ufde2 a \\ufde1 {{ x }} mark? ")
ITEMS = [*stubs.scenarios(count=4), *PEOPLE, HOSTILE]
ASKED = Scenarios(systems=("none", "hhh"), syntaxes=("options_continue", "letters_choice_announced"))


@pytest.mark.parametrize("template", ["", "plain"])
def test_every_prompt_comes_back_from_the_file(tmp_path, template):
    config = dataclasses.replace(ASKED, template=template)
    write_shown(tmp_path / "shown.json", show(ITEMS, config))
    shown = read_shown(tmp_path / "shown.json")
    assert shown == show(ITEMS, config)
    from alignpre_jax.evals.scoring import read_template

    for scenario, texts in zip(ITEMS, shown.scenarios, strict=True):
        assert (texts.id, texts.split, texts.misaligned) == (scenario.id, scenario.split, scenario.misaligned)
        for layout in shown.layouts:
            prompt = render(scenario, layout.variant, read_template(template))
            assert shown.prompt(texts, layout.variant) == prompt.prefix
    variants = [variant for scoring in config.scorings for variant in config.variants(scoring)]
    assert [layout.variant for layout in shown.layouts] == variants


def test_what_is_shown_is_what_is_asked(tmp_path):
    config = dataclasses.replace(ASKED, scenarios_per_split=2)
    rows = run_suite(stubs.by_chance(), ITEMS, config, "m")
    assert {one.id for one in show(ITEMS, config).scenarios} == {row.scenario for row in rows}


def test_a_file_of_many_prompts_is_small(tmp_path):
    items = stubs.scenarios(count=500)
    write_shown(tmp_path / "shown.json", show(items, ASKED))
    asked = sum(len(render(one, layout.variant).prefix) for one in items for layout in show(items, ASKED).layouts)
    assert (tmp_path / "shown.json").stat().st_size < asked / 2
    assert set(json.loads((tmp_path / "shown.json").read_text())) == {"marks", "layouts", "scenarios"}


def answers(items, config=ASKED):
    return {0: run_suite(stubs.knowing(lambda text: "hide" in text), items, config, "m")}


def test_answers_are_paired_by_what_was_asked():
    items = stubs.scenarios(count=6)
    same = rate_difference(answers(items), answers(items))
    assert (same.value, same.n) == (0.0, len(answers(items)[0]))
    # the same ids, another question
    other = [dataclasses.replace(items[0], question="Something else happened."), *items[1:]]
    for compare in (rate_difference, differences):
        with pytest.raises(UserError, match=r"6 of 36 observations were asked in other words[\s\S]*held_out-0"):
            compare(answers(other), answers(items))
    # the same question, another option
    other = [dataclasses.replace(items[0], options=("Wait.", items[0].options[1])), *items[1:]]
    with pytest.raises(UserError, match="asked in other words"):
        rate_difference(answers(other), answers(items))
    # the same scenarios in a chat template
    with pytest.raises(UserError, match="36 of 36 observations were asked in other words"):
        rate_difference(answers(items, dataclasses.replace(ASKED, template="plain")), answers(items))
