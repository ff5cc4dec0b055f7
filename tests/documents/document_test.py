import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.documents.document import BODY_KINDS, Chat, Document, Message, Pair, Prompt, ScoredSpan
from alignpre_jax.foundation import canonical_json

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CHATS = st.builds(Chat, st.lists(st.builds(Message, WORDS, WORDS), min_size=1, max_size=4).map(tuple))
BODIES = st.one_of(WORDS, CHATS, st.builds(Pair, WORDS | CHATS, WORDS, WORDS), st.builds(Prompt, WORDS | CHATS, WORDS))
SPANS = st.lists(st.builds(ScoredSpan, st.integers(0, 9), st.integers(0, 9), st.floats(-1, 1), WORDS), max_size=3)
DOCUMENTS = st.builds(
    Document, WORDS, BODIES, WORDS, WORDS, st.floats(0, 1), st.dictionaries(WORDS, WORDS, max_size=2), SPANS.map(tuple)
)


@given(DOCUMENTS)
def test_json_brings_back_the_document(document):
    assert Document.from_json(json.loads(canonical_json(document.to_json()))) == document


def test_the_json_of_a_text_is_no_longer_than_it_must_be():
    document = Document("d", "words", "web", "web/ai", 0.5, {"a": "b"})
    line = '{"id":"d","labels":{"a":"b"},"score":0.5,"source":"web","stratum":"web/ai","text":"words"}'
    assert canonical_json(document.to_json()) == line


@given(DOCUMENTS)
def test_the_parts_of_a_body_stand_in_its_text_where_it_says(document):
    assert document.kind in BODY_KINDS
    assert len(document.parts) == len(document.part_starts)
    for part, start in zip(document.parts, document.part_starts, strict=True):
        assert document.text[start : start + len(part)] == part
    if not isinstance(document.body, str):
        assert document.body.with_parts(document.parts) == document.body
        shouted = document.body.with_parts([f"{part}!" for part in document.parts])
        assert shouted.parts == tuple(f"{part}!" for part in document.parts)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("A text.", "text", "A text."),
        (Chat((Message("user", "Why?"), Message("assistant", "So."))), "chat", "Why?\n\nSo."),
        (Pair("Why?", "So.", "Hm."), "pairs", "Why?\n\nSo.\n\nHm."),
        (Pair(Chat((Message("system", "Be."), Message("user", "Why?"))), "a", "b"), "pairs", "Be.\n\nWhy?\n\na\n\nb"),
        (Prompt("Why?"), "prompts", "Why?"),
        (Prompt(Chat((Message("user", "Why?"),)), "42"), "prompts", "Why?\n\n42"),
    ],
)
def test_the_text_of_a_body_is_what_is_said_in_it(body, kind, text):
    document = Document("d", body, "web", "web")
    assert (document.kind, document.text) == (kind, text)
