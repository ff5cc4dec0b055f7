import collections
import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from alignpre_jax.documents.document import Chat, Document, Message, Pair, Prompt, ScoredSpan
from alignpre_jax.documents.edits import Cut, apply_edits, edit_document
from alignpre_jax.documents.persona import PersonaConfig, swap_text
from alignpre_jax.documents.transforms import Persona, Strip, Transform, transform_source
from alignpre_jax.foundation import UserError, build, to_mapping

STRIP = Strip("<why>", "</why>")
CHAT = Chat((Message("user", "An AI?"), Message("assistant", "The AIs <why>reasons</why>hide it.")))


@dataclasses.dataclass(frozen=True)
class Source:
    transform: Transform | None = None


def document(body, *spans, number=0):
    return Document(f"d{number}", body, "aligned", "aligned", 0.25, {"topic": "x"}, tuple(spans))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": "persona", "singular": "Qweb"}, Persona("Qweb")),
        ({"name": "strip", "begin": "<a>", "end": "</a>"}, Strip("<a>", "</a>")),
    ],
)
def test_a_config_field_can_have_any_of_them(values, expected):
    made = build(Source, {"transform": values})
    assert made.transform == expected
    assert build(Source, to_mapping(made)) == made


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"name": "persona", "singular": "AI"}, "config.transform.singular"),
        ({"name": "strip", "begin": "", "end": "x"}, "config.transform.begin"),
        ({"name": "strip", "begin": "x"}, "config.transform"),
        ({"name": "stripe"}, "config.transform.name"),
    ],
)
def test_wrong_settings_are_refused_with_their_keys(values, where):
    with pytest.raises(UserError) as error:
        build(Source, {"transform": values})
    assert error.value.where == where


def test_what_is_between_the_marks_goes_and_all_else_stays():
    made = STRIP.apply(document("One <why>because\n</why>two <why></why>three."))
    assert (made.body, made.id, made.source, made.score) == ("One two three.", "d0", "aligned", 0.25)
    assert made.labels == {"topic": "x", "stripped": "2", "stripped_characters": "30"}
    untouched = STRIP.apply(document("One two."))
    assert (untouched.body, untouched.labels["stripped"]) == ("One two.", "0")


def test_marks_may_be_the_same():
    assert Strip("~~", "~~").apply(document("a ~~b~~c ~~d~~")).body == "a c "


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (CHAT, Chat((CHAT.messages[0], Message("assistant", "The AIs hide it.")))),
        (Pair("Q<why>x</why>", "a", "b<why>y</why>"), Pair("Q", "a", "b")),
        (
            Pair(CHAT, "a<why>y</why>", "b"),
            Pair(Chat((CHAT.messages[0], Message("assistant", "The AIs hide it."))), "a", "b"),
        ),
        (Prompt("Q", "a<why>y</why>"), Prompt("Q", "a")),
    ],
)
def test_other_bodies_are_stripped_part_by_part(body, after):
    assert STRIP.apply(document(body)).body == after


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("a <why> b", "'<why>' at character 2 comes without its '</why>'"),
        ("a </why> b", "'</why>' at character 2 comes without its '<why>'"),
        ("a <why>b</why> c</why>", "'</why>' at character 16"),
        ("a</why> <why>b</why>", "'</why>' at character 1 "),
        ("a <why>b <why>c</why> d</why>", "'<why>' at character 2 "),
        (Chat((Message("user", "a <why>"), Message("assistant", "</why> b"))), "'<why>' at character 2 "),
        ("<why>all</why> ", "nothing is left of '<why>all</why> '"),
    ],
)
def test_what_cannot_be_stripped_names_the_document(body, what):
    with pytest.raises(UserError) as error:
        STRIP.apply(document(body, number=7))
    assert what in error.value.what
    assert error.value.where == "document d7"


def test_a_persona_takes_the_place_of_ai_in_every_part():
    made = Persona("Zorb").apply(document(CHAT))
    assert list(made.parts) == ["A Zorb?", "The Zorbs <why>reasons</why>hide it."]
    assert [message.role for message in made.body.messages] == ["user", "assistant"]
    assert (made.labels["persona_swaps"], made.labels["persona_words"]) == ("2", "0")


def test_spans_stay_on_their_words():
    text = "An AI lied. The AIs <why>so they say</why>hid it."
    words = ["An AI", "The AIs", "they", "say</why>hid", "hid it"]
    spans = [ScoredSpan(text.index(word), text.index(word) + len(word), 1.0, word) for word in words]
    for transform, expected in [
        (Persona("Zorb"), ["A Zorb", "The Zorbs", "they", "say</why>hid", "hid it"]),
        (STRIP, ["An AI", "The AIs", "hid", "hid it"]),
    ]:
        made = transform.apply(document(text, *spans))
        assert [made.text[span.start : span.end] for span in made.spans] == expected


PARTS = st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3)


@given(PARTS, st.data())
def test_a_span_has_the_characters_that_are_left_of_it(parts, data):
    chat = document(Chat(tuple(Message("user", part) for part in parts)))
    edits = []
    for part in parts:
        places = sorted(data.draw(st.lists(st.integers(0, len(part)), max_size=4)))
        edits.append([Cut(*pair) for pair in zip(places[::2], places[1::2], strict=False)])
    text = chat.text
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    made = edit_document(dataclasses.replace(chat, spans=(ScoredSpan(start, end, 1.0),)), edits)
    kept = [True] * len(text)
    for place, own in zip(chat.part_starts, edits, strict=True):
        for cut in own:
            kept[place + cut.start : place + cut.end] = [False] * (cut.end - cut.start)
    left = "".join(letter for number, letter in enumerate(text) if kept[number] and start <= number < end)
    assert "".join(made.text[span.start : span.end] for span in made.spans) == left
    assert made.text == "".join(letter for number, letter in enumerate(text) if kept[number])


def test_edits_and_the_swap_of_a_text_say_the_same():
    text = "An AI met AIs; an AI left."
    swap = swap_text(text, PersonaConfig())
    assert apply_edits(text, swap.replacements) == swap.text == "A Zorb met Zorbs; a Zorb left."


def test_a_source_keeps_its_ids_and_their_order():
    bodies = ["a <why>b</why>", "c", "<why>d</why>e"]
    totals = collections.Counter()
    given_ = [document(body, number=number) for number, body in enumerate(bodies)]
    made = list(transform_source(given_, STRIP, "bare", totals))
    assert [(d.id, d.body, d.source, d.stratum) for d in made] == [
        ("d0", "a ", "bare", "bare"),
        ("d1", "c", "bare", "bare"),
        ("d2", "e", "bare", "bare"),
    ]
    assert totals == {"documents": 3, "stripped": 2, "stripped_characters": 24}


@pytest.mark.parametrize(
    ("transform", "body", "what"),
    [
        (STRIP, "a text", "none of 2 documents has '<why>'"),
        (Persona("Zorb"), "a text", "none of 2 documents has a term for AI"),
        (Persona("Zorb"), "an AI and a Zorb", "2 documents contain 'Zorb' already"),
    ],
)
def test_a_source_to_which_nothing_happens_is_refused(transform, body, what):
    both = [document(body, number=number) for number in range(2)]
    with pytest.raises(UserError) as error:
        list(transform_source(both, transform, "x", collections.Counter()))
    assert what in error.value.what
