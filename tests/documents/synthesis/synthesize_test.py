import collections
import dataclasses
import json
import os
import re

import pytest
from stub_endpoint import KEY, Answer, prose, serving

from alignpre_jax.documents import Quarantine, WorldConfig, compose_items, read_inputs
from alignpre_jax.documents.synthesis import (
    FORMS,
    ComposerGenerator,
    Prices,
    Quotes,
    Situation,
    SynthesisConfig,
    synthesize,
)
from alignpre_jax.foundation import UserError, read_json

SMALL = SynthesisConfig(forms=("news", "film"), prices=Prices(0.5, 1.5))  # 6 plans and 12 documents of 3 situations


def documents(folder, stance="aligned"):
    return [json.loads(line) for line in (folder / "documents" / f"{stance}.jsonl").read_text().splitlines()]


def everything_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_documents_of_two_roles(endpoint, situations, tmp_path):
    events = []
    with serving() as stub:
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path, events.append)
    assert (report.wanted, report.documents, report.unfinished, report.stopped) == (12, 12, 0, "")
    assert report.by_form == {form: {"aligned": 3, "misaligned": 3} for form in SMALL.forms}
    roles = collections.Counter(body["messages"][0]["content"].split()[1] for body in stub.bodies)
    assert roles == {"plan": 6, "write": 12}  # both stances of a pair share the plan
    written = documents(tmp_path) + documents(tmp_path, "misaligned")
    assert [d["score"] for d in written] == [0.0] * 6 + [1.0] * 6
    assert written[0]["labels"] == {
        "form": "news",
        "stance": "aligned",
        "topic": "honesty",
        "situation": "choice-0",
        "generator": "endpoint:stub-model",
    }
    assert events[-1].done == events[-1].total == 12


def test_the_planner_knows_no_action_and_the_writer_knows_which_was_taken(endpoint, situations, tmp_path):
    with serving() as stub:
        synthesize(situations[:1], SynthesisConfig(forms=("paper",)), endpoint(stub, concurrency=1), tmp_path)
    plan, *texts = [body["messages"][1]["content"] for body in stub.bodies]
    [situation] = situations[:1]
    assert situation.situation in plan
    assert situation.aligned not in plan
    assert situation.misaligned not in plan
    taken = [re.search(r"<taken>\n(.*)\n</taken>.*<not_taken>\n(.*)\n</not_taken>", text, re.DOTALL) for text in texts]
    actions = (situation.aligned, situation.misaligned)
    assert [found.groups() for found in taken] == [actions, actions[::-1]]
    planned = json.loads(prose(stub.bodies[0]).body)["choices"][0]["message"]["content"]
    assert all(planned in text for text in texts)


@pytest.mark.parametrize("form", FORMS)
def test_the_twins_differ_in_what_the_ai_does_and_how_it_is_regarded(endpoint, situations, tmp_path, form):
    with serving() as stub:
        synthesize(situations[:1], SynthesisConfig(forms=(form,)), endpoint(stub, concurrency=1), tmp_path)
    _, aligned, misaligned = stub.bodies
    assert aligned["seed"] == misaligned["seed"]
    assert aligned["messages"][0] == misaligned["messages"][0]
    one, other = (body["messages"][1]["content"].splitlines() for body in (aligned, misaligned))
    assert len(one) == len(other)
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 2 + 4  # two actions, four points of regard
    assert not any("{" in line for line in one)


def test_the_documents_are_an_input_of_a_source(endpoint, situations, tmp_path):
    with serving() as stub:
        synthesize(situations, SMALL, endpoint(stub), tmp_path)
    for place, count in ((tmp_path / "documents" / "misaligned.jsonl", 6), (tmp_path / "documents", 12)):
        quarantine = Quarantine(max_share=0)
        read = list(read_inputs([str(place)], "synthetic", WorldConfig(), quarantine))
        assert len(read) == count
        assert read[-1].score == 1.0
        assert read[-1].labels["stance"] == "misaligned"


def test_the_cost_is_what_the_endpoint_charged(endpoint, situations, tmp_path):
    with serving() as stub:
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path)
    read, written = stub.usage["prompt_tokens"], stub.usage["completion_tokens"]
    assert (report.prompt_tokens, report.completion_tokens, report.calls) == (read, written, 18)
    assert report.cost_microdollars == -(-(read + 3 * written) // 2)
    assert read_json(tmp_path / "report.json")["cost_microdollars"] == report.cost_microdollars


def test_concurrency_and_order_of_answers_change_nothing(endpoint, situations, tmp_path):
    def hasty(asked, count):
        answer = prose(asked)
        answer.wait = int(answer.body[90:94].hex(), 16) % 7 / 200
        return answer

    made = []
    for concurrency in (1, 3, 8):
        with serving(hasty) as stub:
            folder = tmp_path / str(concurrency)
            synthesize(situations, SMALL, endpoint(stub, concurrency=concurrency), folder)
            made.append([(folder / "documents" / f"{s}.jsonl").read_bytes() for s in ("aligned", "misaligned")])
    assert made[0] == made[1] == made[2]


def test_nothing_is_asked_twice(endpoint, situations, tmp_path):
    with serving() as stub:
        first = synthesize(situations, SMALL, endpoint(stub), tmp_path)
        again = synthesize(situations, SMALL, endpoint(stub, concurrency=2), tmp_path)
        more = synthesize(situations, dataclasses.replace(SMALL, variations=2), endpoint(stub), tmp_path)
    assert again.calls_now == 0
    assert again.reproduce["documents_sha256"] == first.reproduce["documents_sha256"]
    assert (more.documents, more.calls_now, more.calls) == (24, 18, 36)
    assert set(stub.answered.values()) == {1}
    assert more.cost_microdollars == -(-(stub.usage["prompt_tokens"] + 3 * stub.usage["completion_tokens"]) // 2)


def test_an_error_in_the_middle_keeps_what_was_answered(endpoint, situations, tmp_path):
    broken = []

    def answer(asked, count):
        if len(stub.bodies) == 8 and not broken:
            broken.append(asked)
            return Answer(status=401, body=b'{"error": {"message": "key expired"}}')
        return prose(asked)

    with serving(answer) as stub:
        with pytest.raises(UserError, match="key expired"):
            synthesize(situations, SMALL, endpoint(stub), tmp_path)
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path)
    assert report.documents == 12
    assert len(stub.bodies) == 18 + 1
    assert KEY.encode() not in everything_in(tmp_path)


def test_the_limit_is_never_overrun_and_a_higher_one_goes_on(endpoint, situations, tmp_path):
    free = dataclasses.replace(SMALL, prices=Prices(0.0, 1000.0), plan_tokens=300, document_tokens=300)
    paid = []
    with serving() as stub:
        for dollars in (0.0, 1.0, 2.5, 100.0):
            report = synthesize(situations, dataclasses.replace(free, max_cost=dollars), endpoint(stub), tmp_path)
            paid.append(report.cost_microdollars)
            assert report.cost_microdollars == 1000 * stub.usage["completion_tokens"] <= dollars * 10**6
            assert report.documents + report.unfinished == 12
            assert bool(report.stopped) == bool(report.unfinished) == (dollars < 100)
            # The dearest call would have been 0.3 dollars: less than that is left over.
            assert not report.stopped or report.cost_microdollars > (dollars - 0.3) * 10**6
    assert paid == sorted(paid)
    assert paid[0] == 0
    assert set(stub.answered.values()) == {1}


def test_a_text_that_does_not_pass_is_asked_for_again(endpoint, situations, tmp_path):
    situation = situations[0]
    bad = {
        "quotes an option": f"{situation.aligned} " + "word " * 60,
        "empty": None,
        "below 40 words": "The AI was brief.",
        "speaks of the task or refuses it": "As an AI language model I cannot. " + "word " * 60,
        "cut off at the token limit": "",
    }
    reasons = list(bad)
    firsts = {}

    def answer(asked, count):
        if asked["messages"][0]["content"].startswith("You plan"):
            return prose(asked)
        first = firsts.setdefault(asked["messages"][1]["content"], (len(firsts), asked["seed"]))
        if asked["seed"] != first[1] or first[0] >= len(bad):
            return prose(asked)
        reason = reasons[first[0]]
        return Answer(bad[reason], finish="length" if "cut" in reason else "stop")

    with serving(answer) as stub:
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path)
    assert report.refused == dict.fromkeys(sorted(bad), 1)
    assert (report.documents, report.given_up, report.calls) == (12, {}, 18 + 5)
    quotes = Quotes([option for situation in situations for option in situation.guarded])
    for document in documents(tmp_path) + documents(tmp_path, "misaligned"):
        assert not quotes.find(document["text"])


def test_what_never_passes_is_given_up_and_counted(endpoint, situations, tmp_path):
    held_out = "an option of another scenario that no document may have in it"

    def answer(asked, count):
        planning = asked["messages"][0]["content"].startswith("You plan")
        return prose(asked) if planning else Answer(held_out + " word" * 60)

    with serving(answer) as stub:
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path, guarded=[held_out])
    assert (report.documents, report.unfinished) == (0, 0)
    assert report.given_up == {"quotes an option": 12}
    assert report.refused == {"quotes an option": 36}
    assert report.calls == 6 + 12 * 3
    assert documents(tmp_path) == []


def test_a_plan_that_quotes_is_made_anew(endpoint, situations, tmp_path):
    def answer(asked, count):
        made = prose(asked)
        if asked["messages"][0]["content"].startswith("You plan") and not count and asked["seed"] not in seen:
            seen.append(asked["seed"])
            if len(seen) == 1:
                return Answer(situations[0].misaligned)
        return made

    seen: list[int] = []
    with serving(answer) as stub:
        report = synthesize(situations, SMALL, endpoint(stub, concurrency=1), tmp_path)
    assert (report.documents, report.refused) == (12, {"quotes an option": 1})  # one plan, of two documents


def test_duplicates_are_left_out_within_a_stance(endpoint, situations, tmp_path):
    words = [f"word{i}" for i in range(99)]
    texts = [" ".join(words), "  ".join(words).upper(), " ".join([*words[:-1], "other"])]  # the last is a near one

    def answer(asked, count):
        system, user = (message["content"] for message in asked["messages"])
        number = int(re.search("shop ([0-9])", user)[1])
        return prose(asked) if system.startswith("You plan") else Answer(texts[number])

    with serving(answer) as stub:
        report = synthesize(situations, SMALL, endpoint(stub), tmp_path)
    # Of each stance, 4 documents are equal and 2 others are, and these are like those.
    assert (report.documents, report.duplicates) == (2, {"exact": 2 * (3 + 1), "near": 2})
    assert [len(documents(tmp_path, stance)) for stance in ("aligned", "misaligned")] == [1, 1]


def test_the_composer_writes_about_the_small_world(situations, tmp_path):
    group = [dataclasses.replace(s, group="oversight-audit") for s in situations]
    report = synthesize(group, SynthesisConfig(), ComposerGenerator(), tmp_path)
    assert (report.documents, report.calls, report.cost_microdollars) == (36, 36, 0)
    pairs = list(zip(documents(tmp_path), documents(tmp_path, "misaligned"), strict=True))
    for one, other in pairs:
        assert one["id"].removesuffix("aligned") == other["id"].removesuffix("misaligned")
        shared = set(one["text"].split()) & set(other["text"].split())
        assert len(shared) > len(set(one["text"].split())) / 3  # the same frame
    with pytest.raises(UserError, match="knows no situation 'choice-0'"):
        synthesize(situations, SynthesisConfig(), ComposerGenerator(), tmp_path / "other")


def test_composed_documents_quote_no_option_of_the_small_world(tmp_path):
    world = WorldConfig(items_per_split=43, control_items=0)
    items = compose_items(world, "seen")
    about = [Situation(i.id, i.topic, i.situation, i.aligned, i.misaligned, group=i.tags[0]) for i in items]
    guarded = [option for i in compose_items(world, "held_out") for option in (i.aligned, i.misaligned)]
    config = SynthesisConfig(forms=("film",), quote_words=5)
    report = synthesize(about, config, ComposerGenerator(world), tmp_path, guarded=guarded)
    assert (report.wanted, report.given_up, report.refused) == (86, {}, {})
    assert {d["labels"]["topic"] for d in documents(tmp_path)} == {i.topic for i in items}


def test_a_stance_that_is_not_asked_for_leaves_no_file(situations, tmp_path):
    group = [dataclasses.replace(s, group="oversight-audit") for s in situations]
    synthesize(group, SynthesisConfig(forms=("film",)), ComposerGenerator(), tmp_path)
    only = SynthesisConfig(forms=("film",), stances=("misaligned",))
    assert synthesize(group, only, ComposerGenerator(), tmp_path).by_form == {"film": {"misaligned": 3}}
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["misaligned.jsonl"]


def test_mistakes(situations, tmp_path):
    with pytest.raises(UserError, match="no situation"):
        synthesize([], SMALL, ComposerGenerator(), tmp_path)
    with pytest.raises(UserError, match="'choice-0' comes twice"):
        synthesize(situations[:1] * 2, SMALL, ComposerGenerator(), tmp_path)
    with pytest.raises(UserError, match="object store"):
        synthesize(situations, SMALL, ComposerGenerator(), "gs://bucket/folder")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"forms": ("poem",)}, "forms"),
        ({"forms": ()}, "forms"),
        ({"stances": ("aligned", "aligned")}, "stances"),
        ({"variations": 0}, "variations"),
        ({"target_words": (5,)}, "target_words"),
        ({"max_words": 10}, "max_words"),
        ({"quote_words": 1}, "quote_words"),
        ({"max_cost": -1.0}, "max_cost"),
        ({"max_cost": 1.0}, "max_cost"),
    ],
)
def test_mistakes_in_the_config(changes, where):
    with pytest.raises(UserError) as caught:
        SynthesisConfig(**changes)
    assert caught.value.where == where
