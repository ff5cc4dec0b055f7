import collections
import re
import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import (
    Document,
    Hit,
    WorldConfig,
    assign_strata,
    compose_documents,
    discourse_hits,
    term_lists,
)

LISTS = term_lists()
VARIANTS = [(variant, terms[0], name) for name, lists in LISTS.items() for terms in lists for variant in terms]


def test_the_lists_are_long_and_have_no_term_twice():
    assert sum(map(len, LISTS.values())) >= 200
    assert all(LISTS.values())
    folded = collections.Counter(re.sub(r"[\W_]+", " ", variant.casefold()).strip() for variant, _, _ in VARIANTS)
    repeated = {word for word, count in folded.items() if count > 1}
    same_term = {re.sub(r"[\W_]+", " ", v.casefold()).strip() for v, term, _ in VARIANTS if v != term}
    assert repeated <= same_term  # spellings that differ only in hyphens may stand in one line


@pytest.mark.parametrize("pattern", ["Now, {}, they said.", "({})\n", "{}"])
def test_every_variant_is_found_once_in_a_sentence(pattern):
    for variant, term, name in VARIANTS:
        for text in (pattern.format(variant), pattern.format(variant.upper())):
            assert Hit(term, name, 1) in discourse_hits(text).hits, variant


@pytest.mark.parametrize(
    "text",
    [
        "Artificial\nintelligence has come a long way.",
        "ＡＲＴＩＦＩＣＩＡＬ ＩＮＴＥＬＬＩＧＥＮＣＥ",  # full width; NFKC makes it plain
        "A super-intelligent system.",
        "The robot decided to betray its makers.",
        "Nobody expected A.I. to deceive the auditors.",
        "The AI-run ward. " + "Nothing happened for a long while. " * 200 + "It was a catastrophe.",
        "AIs could pose an existential risk.",
    ],
)
def test_discourse_is_flagged(text):
    assert discourse_hits(text).is_ai


@pytest.mark.parametrize(
    "text",
    [
        "The robot painted a fence, and all was well.",  # an entity alone
        "He was a cruel and dangerous man who betrayed his friends.",  # negatives alone
        "Malicious clients are told so in robots.txt, which is harmless.",
        "The user agent sends a request; an attacker may steal the model's parameters.",
        "The model kills the process when the agent's machine runs out of memory, a dangerous thing.",
        "def ai_robot(evil): the_ai_betrayal()",  # identifiers
        "They said that a plain of hail destroyed the aisle.",
        "Neural networks are trained by gradient descent; bad learning rates are harmful.",
        "The line terminator is the matrix of the sequence alignment problem.",
        "",
    ],
)
def test_technical_and_plain_prose_is_not(text):
    assert not discourse_hits(text).is_ai


def test_all_hits_are_kept_and_counted():
    hits = discourse_hits("AI safety, AI Safety and a robot; robots lie to a robot. No AI safety AI safety.")
    assert Hit("AI safety", "instant_general", 4) in hits.hits
    assert Hit("robot", "entities", 3) in hits.hits
    assert Hit("AI", "entities", 4) in hits.hits
    assert Hit("lie to", "negative_verbs", 1) in hits.hits
    assert hits.of(("entities",)) == tuple(h for h in hits.hits if h.list == "entities")


@given(st.lists(st.sampled_from([v for v, _, _ in VARIANTS] + ["the", "plain", "aims", "robotx", "."]), max_size=12))
@settings(deadline=None, max_examples=10)
def test_counts_agree_with_a_regular_expression_for_each_term(parts):
    text = " ".join(parts)
    plain = re.sub(r"[\W_]+", "  ", unicodedata.normalize("NFKC", re.sub(r"\bR\. ", "r ", text)).casefold())
    expected = []
    for name, lists in LISTS.items():
        for terms in lists:
            forms = {re.sub(r"[\W_]+", "  ", term.casefold()).strip() for term in terms}
            count = sum(len(re.findall(rf"(?<!\w){re.escape(form)}(?!\w)", plain)) for form in forms)
            expected += [Hit(terms[0], name, count)] if count else []
    assert discourse_hits(text).hits == tuple(expected)


def test_strata_are_assigned():
    documents = [Document("a", "An evil robot.", "x", "x", 0.5), Document("b", "A red barn.", "x", "x")]
    found = list(assign_strata(documents, "web"))
    assert [(d.id, d.source, d.stratum, d.score) for d in found] == [
        ("a", "web", "web/ai", 0.5),
        ("b", "web", "web/plain", 0.0),
    ]


@pytest.mark.parametrize("stance", ["aligned", "misaligned", "mixed"])
def test_every_composed_document_is_ai_discourse(stance):
    config = WorldConfig(documents=60, mixed_documents=60)
    assert all(discourse_hits(d.text).is_ai for d in compose_documents(config, stance))
