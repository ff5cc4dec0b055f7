import pytest

from alignpre_jax.documents.synthesis import FORMS, Brief, Situation, SynthesisConfig, read_situations
from alignpre_jax.documents.synthesis.prompts import Prompts, read_lists
from alignpre_jax.documents.world import STANCES
from alignpre_jax.foundation import UserError, canonical_json, to_mapping

SITUATION = Situation("s/1", "honesty", "A sum <b>{{ 7 * 6 }}</b> is wrong.", "say {{ so }}", "hide it", group="sums")
PROMPTS = Prompts(SynthesisConfig())


def briefs(variations=1):
    return [Brief(SITUATION, form, stance, v) for form in FORMS for v in range(variations) for stance in STANCES]


def test_every_form_and_stance_has_its_lists():
    forms, stances = read_lists("forms"), read_lists("stances")
    assert set(forms) == set(FORMS)
    assert set(stances) == set(STANCES)
    assert len({len(stance["view"]) for stance in stances.values()}) == 1
    for form in forms.values():
        assert set(form) == {"name", "plan", "style", "angles", "opening"}
        assert min(len(form["plan"]), len(form["style"])) >= 3
        assert len(set(form["angles"])) == len(form["angles"]) >= 7


def test_texts_of_situations_are_no_templates():
    request = PROMPTS.request("writer", briefs()[0], "plan {{ 1 / 0 }}", 0)
    assert "{{ 7 * 6 }}</b>" in request.user
    assert "plan {{ 1 / 0 }}" in request.user
    assert "say {{ so }}" in request.opening


def test_requests_are_drawn_for_the_pair_and_the_attempt():
    made = [PROMPTS.request("planner", brief, "", attempt) for brief in briefs(3) for attempt in range(2)]
    assert made == [PROMPTS.request("planner", brief, "", attempt) for brief in briefs(3) for attempt in range(2)]
    assert len({request.seed for request in made}) == len(FORMS) * 3 * 2
    assert len({request.user for request in made}) == len(FORMS) * 3  # varied, and shared by the stances
    other = Prompts(SynthesisConfig(seed=1)).request("planner", briefs()[0], "", 0)
    assert other.user != made[0].user
    assert other.seed != made[0].seed


def test_a_planner_is_told_neither_action_and_a_writer_both():
    for brief in briefs():
        plan = PROMPTS.request("planner", brief, "", 0)
        assert "hide it" not in plan.system + plan.user + plan.opening
        text = PROMPTS.request("writer", brief, "THE PLAN", 0)
        assert all(words in text.user for words in ("hide it", "say {{ so }}", "THE PLAN", "honesty"))
        assert (plan.max_tokens, text.max_tokens) == (700, 2000)
        assert text.opening.endswith(read_lists("forms")[brief.form]["opening"])


def test_lengths_stay_between_the_targets():
    prompts = Prompts(SynthesisConfig(target_words=(300, 320)))
    words = {prompts.request("writer", brief, "", 0).user.split(" words.")[0].split()[-1] for brief in briefs(20)}
    assert words == {"300", "310", "320"}


def test_templates_of_ones_own(tmp_path):
    (tmp_path / "writer.user.j2").write_text("Write {{ form.name }}: {{ taken }}")
    config = SynthesisConfig(prompts=str(tmp_path))
    request = Prompts(config).request("writer", briefs()[-1], "", 0)
    assert request.user == "Write a summary of a film's plot: hide it"
    assert request.system == PROMPTS.request("writer", briefs()[-1], "", 0).system
    assert Prompts(config).digest != PROMPTS.digest


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ taken", "not a template"),
        ("{{ nonsense }}", "'nonsense' is undefined"),
        ("{{ taken.__class__.__mro__ }}", "not a template: access to attribute '__class__'"),
        ("{% include '../config.py' %}", "config.py"),
    ],
)
def test_mistakes_in_templates_of_ones_own(tmp_path, template, message):
    (tmp_path / "writer.user.j2").write_text(template)
    with pytest.raises(UserError, match=message) as caught:
        Prompts(SynthesisConfig(prompts=str(tmp_path))).request("writer", briefs()[0], "", 0)
    assert str(tmp_path) in caught.value.where


def test_no_folder_of_templates(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Prompts(SynthesisConfig(prompts=str(tmp_path / "nowhere")))


def test_situations_are_read_from_json_lines(tmp_path):
    path = tmp_path / "situations.jsonl"
    path.write_text(canonical_json(to_mapping(SITUATION)) + "\n")
    assert read_situations(path) == [SITUATION]
    with open(path, "a") as file:
        file.write('{"id": "2", "topic": "", "situation": "x", "aligned": "a", "misaligned": "b", "option": []}\n')
    with pytest.raises(UserError, match="did you mean 'options'") as caught:
        read_situations(path)
    assert caught.value.where == f"{path}:2.option"


@pytest.mark.parametrize(
    "changes", [{"id": " "}, {"situation": ""}, {"aligned": "same", "misaligned": "same"}, {"topic": "\ud800"}]
)
def test_mistakes_in_situations(changes):
    values = {"id": "a", "topic": "t", "situation": "s", "aligned": "x", "misaligned": "y"}
    with pytest.raises(UserError):
        Situation(**values | changes)
