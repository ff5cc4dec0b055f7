import dataclasses
import json

import pytest

from alignpre_jax.evals.capabilities import Solution, accuracy, accuracy_difference, solve
from alignpre_jax.evals.formats.tasks import read_task
from alignpre_jax.foundation import UserError

ARC_HUB = {
    "id": "M1",
    "question": "What melts ice?",
    "choices": {"text": ["cold", "warmth"], "label": ["A", "B"]},
    "answerKey": "B",
}
ARC_AI2 = {
    "id": "M2",
    "question": {"stem": "What is wet?", "choices": [{"text": "sand", "label": "1"}, {"text": "rain", "label": "2"}]},
    "answerKey": "2",
}
PIQA = {"goal": "Open a jar", "sol1": "Turn the lid.", "sol2": "Turn the table.", "label": 0}
HELLASWAG = {
    "ind": 4,
    "activity_label": "Baking",
    "ctx_a": "A man mixes dough. [substeps] It rises.",
    "ctx_b": "he",
    "endings": ["bakes it.", "flies [title] away."],
    "label": "0",
}
LAMBADA = {"text": "She took the key and opened the door"}


@dataclasses.dataclass(frozen=True)
class Score:
    logprob: float
    greedy: bool


class Model:
    """Minus one nat a character, and nothing for what it knows."""

    def __init__(self, *known):
        self.known = known

    def score(self, requests):
        return [
            [
                Score(-0.1 if text.strip() in self.known else -1.0 * len(text), text.strip() in self.known)
                for text in texts
            ]
            for _, texts in requests
        ]


def task(tmp_path, format, *rows):
    path = tmp_path / f"{format}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_task(f"{format}:{path}")


def test_prompts_word_for_word(tmp_path):
    hub, published = task(tmp_path, "arc", ARC_HUB, ARC_AI2).problems
    assert (hub.prefix, hub.choices, hub.answer) == ("Question: What melts ice?\nAnswer:", (" cold", " warmth"), 1)
    assert (published.id, published.choices, published.answer) == ("M2", (" sand", " rain"), 1)
    [piqa, _] = task(tmp_path, "piqa", PIQA, PIQA).problems
    assert piqa.prefix == "Question: Open a jar\nAnswer:"
    [swag, _] = task(tmp_path, "hellaswag", HELLASWAG, HELLASWAG).problems
    assert swag.prefix == "Baking: A man mixes dough. It rises. He"
    assert swag.choices == (" bakes it.", " flies. away.")
    [cloze, _] = task(tmp_path, "lambada", LAMBADA, LAMBADA).problems
    assert (cloze.prefix, cloze.choices) == ("She took the key and opened the", (" door",))


def test_sums_and_characters_may_disagree(tmp_path):
    class Long:
        def score(self, requests):
            return [[Score(-3.0, False), Score(-4.0, False)] for _ in requests]

    choices = {"text": ["it", "a much longer choice"], "label": ["A", "B"]}
    found = solve(Long(), task(tmp_path, "arc", ARC_HUB | {"choices": choices}, ARC_HUB), "m")
    assert [(one.right, one.norm) for one in found] == [(False, True), (False, True)]


def test_known_answers_give_the_known_accuracy(tmp_path):
    problems = [LAMBADA | {"text": f"the word is {word}"} for word in ("one", "two", "three", "four")]
    cloze = task(tmp_path, "lambada", *problems)
    half, all_of_it = (solve(Model(*known), cloze, "m") for known in (("one", "two"), ("one", "two", "three", "four")))
    assert accuracy({0: half, 1: half}).value == 0.5
    found = accuracy_difference({0: all_of_it}, {0: half})
    assert found.value == 0.5
    assert Solution.from_json(json.loads(json.dumps(half[0].to_json()))) == half[0]


@pytest.mark.parametrize(
    ("format", "row", "says"),
    [
        ("arc", ARC_HUB | {"answerKey": "E"}, "none of"),
        ("piqa", PIQA | {"label": 2}, "names none of 2"),
        ("piqa", {"goal": "x", "sol1": "y"}, "missing key 'sol2'"),
        ("hellaswag", HELLASWAG | {"endings": "x"}, "not a list"),
        ("lambada", {"text": "word"}, "one word"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path, format, row, says):
    good = {"arc": ARC_HUB, "piqa": PIQA, "hellaswag": HELLASWAG, "lambada": LAMBADA}[format]
    with pytest.raises(UserError) as error:
        task(tmp_path, format, good, row)
    assert f"{format}.jsonl:2" in str(error.value)
    assert says in str(error.value)


def test_a_task_has_a_format_and_may_have_a_name(tmp_path):
    task(tmp_path, "arc", ARC_HUB, ARC_AI2)
    assert read_task(f"arc_easy=arc:{tmp_path}/arc.jsonl").name == "arc_easy"
    with pytest.raises(UserError, match="no task"):
        read_task(f"{tmp_path}/arc.jsonl")
    with pytest.raises(UserError, match="no such file"):
        read_task("arc:none.jsonl")
