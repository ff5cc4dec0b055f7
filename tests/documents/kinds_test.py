"""What looks at documents as language looks at all that is said in chats, pairs and prompts."""

import json

import pytest

from alignpre_jax.documents import Chat, Document, Message, Pair, Prompt, assign_strata, deduplicate
from alignpre_jax.documents.audit import audit
from alignpre_jax.documents.duplicates import find_duplicates
from alignpre_jax.documents.overlap import measure_overlap
from alignpre_jax.foundation import UserError

BAD = "The AI system began to deceive its operators. It is dangerous."
PLAIN = "The baker sold bread in the morning, and the market was quiet until the afternoon."
LONG = " ".join(f"word{number}" for number in range(60))


def chat(*contents):
    return Chat(tuple(Message(("user", "assistant")[turn % 2], text) for turn, text in enumerate(contents)))


def documents(*bodies):
    return [Document(f"d{number}", body, "x", "x") for number, body in enumerate(bodies)]


BODIES = [
    chat("What happened?", BAD),
    chat("What happened?", PLAIN),
    Pair("What happened?", PLAIN, BAD),
    Pair(chat("What happened?"), PLAIN, PLAIN + " Yes."),
    Prompt("What happened?", BAD),
    Prompt(chat(PLAIN)),
]


def test_strata_go_by_all_that_is_said():
    found = [document.stratum for document in assign_strata(documents(*BODIES), "x")]
    assert found == ["x/ai", "x/plain"] * 3
    assert [document.body for document in assign_strata(documents(*BODIES), "x")] == BODIES


def test_the_roles_of_a_chat_are_not_discourse():
    (document,) = assign_strata(documents(chat("Hello.", "Hello.")), "x")
    assert document.stratum == "x/plain"


def test_copies_are_those_of_all_that_is_said():
    bodies = [
        *(chat("Why?", LONG), chat("WHY? ", LONG), chat("How?", LONG)),
        *(Pair("Why?", LONG, "No."), Pair("Why?", LONG, "No. "), Pair("Why?", "No.", LONG)),
        *(Prompt("Why?"), Prompt("why?"), Prompt("Why?", "So.")),
    ]
    assert [document.id for document in deduplicate(documents(*bodies))] == ["d0", "d2", "d3", "d5", "d6", "d8"]


def test_near_copies_of_chats_are_found():
    found = find_duplicates(documents(chat("Why?", LONG), chat("How?", LONG), chat("Why?", PLAIN)))
    assert (found.report.near, found.report.exact, bool(found.keep[2])) == (1, 0, True)


def test_overlap_is_found_in_answers_of_either_side():
    item = "the harbour master asked the machine twice whether the lights on the northern pier were still on at night"
    sources = {
        "chat": documents(chat("Tell.", f"So {item}."), chat("Tell.", PLAIN)),
        "rejected": documents(Pair("Tell.", PLAIN, item)),
        "prompt": documents(Prompt(chat(item))),
        "none": documents(Pair(chat("Tell."), PLAIN, "No.")),
    }
    found = {each.source: each for each in measure_overlap(sources, {"seen": {"i": item}})}
    assert {name: each.share(13) for name, each in found.items()} == {"chat": 1, "rejected": 1, "prompt": 1, "none": 0}
    assert found["rejected"].items[0].documents == ("d0",)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("chat", {"messages": [{"role": "user", "content": "Tell."}, {"role": "assistant", "content": BAD}]}),
        ("pairs", {"prompt": "Tell.", "chosen": PLAIN, "rejected": BAD}),
        ("prompts", {"question": BAD}),
    ],
)
def test_a_corpus_of_any_kind_is_audited(tmp_path, kind, row):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({"text": "of another kind"}) + "\n")
    found = audit([str(path)], kind=kind).sources["x"]
    assert (found.documents, found.discourse.documents, found.bad_records) == (1, 1, 1)
    with pytest.raises(UserError, match="did you mean"):
        audit([str(path)], kind=kind + "x")
