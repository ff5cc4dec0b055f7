import json

import pytest

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
