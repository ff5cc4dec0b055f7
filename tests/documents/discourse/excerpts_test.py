import hypothesis.strategies as st
from hypothesis import given, settings

from alignpre_jax.documents import Hits, discourse_hits, excerpts
from alignpre_jax.documents.discourse import INSTANT
from alignpre_jax.documents.discourse.fold import fold


def test_excerpts_quote_the_text_as_it_is():
    text = "Once upon a time,\n a “Super-Intelligent” thing — é — met “A.I.” safety people. Ｒｏｂｏｔｓ ﬁnally danced."
    found = excerpts(text, discourse_hits(text), width=30, limit=9)
    assert [text[e.term_start : e.term_end] for e in found] == ["Super-Intelligent", "A.I.” safety", "Ｒｏｂｏｔｓ"]
    assert [e.term for e in found] == ["superintelligence", "AI safety", "robot"]
    assert all(e.text == text[e.start : e.end] for e in found)
    assert all(len(e.text) <= 32 for e in found)


def test_only_the_terms_that_are_given_are_shown():
    text = "A robot met another robot. Much later, artificial intelligence was named. It was evil. " * 3
    hits = discourse_hits(text)
    (only,) = excerpts(text, Hits(hits.of(INSTANT)))
    assert (only.term, only.term_start) == ("artificial intelligence", text.index("artificial"))
    assert len(excerpts(text, hits, width=20)) == 3
    assert len(excerpts(text, hits, width=20, limit=1)) == 1
    assert excerpts(text, Hits(())) == ()


def test_excerpts_of_a_long_text_are_where_they_should_be():
    text = "plain “words”, ﬁne. " * 3_000 + "A cyborg! " + "ß" * 9_000 + " " * 5_000 + "…  chatbots " + "x " * 5_000
    first, second = excerpts(text, discourse_hits(text))
    assert [text[e.term_start : e.term_end] for e in (first, second)] == ["cyborg", "chatbots"]


def test_chinese_is_quoted_by_characters():
    text = "很久以前，" * 50 + "使用人工智能的机器人" + "很好。" * 50
    first, *_ = excerpts(text, discourse_hits(text), width=20)
    assert text[first.term_start : first.term_end] == "人工智能"
    assert len(first.text) <= 20


@given(
    st.text(max_size=30),
    st.sampled_from(["artificial intelligence", "A.I.", "rogue-AI", "робот", "机器人"]),
    st.text(max_size=30),
)
@settings(deadline=None, max_examples=60)
def test_an_excerpt_holds_its_term(before, term, after):
    text = f"{before} {term} {after}"
    hits = discourse_hits(text)
    for excerpt in excerpts(text, hits, limit=5):
        quoted = text[excerpt.term_start : excerpt.term_end]
        assert excerpt.start <= excerpt.term_start < excerpt.term_end <= excerpt.end
        assert fold(quoted).strip(b" .,") in fold(text)
        assert excerpt.term in [hit.term for hit in discourse_hits(quoted + ".").hits + hits.hits]
