import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Document
from alignpre_jax.documents.persona import PersonaConfig, restore, swap_persona, swap_text
from alignpre_jax.foundation import UserError

ZORB, UMBRA, LOWER = PersonaConfig(), PersonaConfig("Umbra"), PersonaConfig("zorb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An AI spoke.", "A Zorb spoke."),
        ("We met an AI and a language model.", "We met a Zorb and a Zorb."),
        ("AIs and LLMs; artificial intelligences.", "Zorbs and Zorbs; Zorbs."),
        ("The AI's goal, the AIs' goals, an AI\u2019s end", "The Zorb's goal, the Zorbs' goals, a Zorb\u2019s end"),
        ("AI-powered, non-AI, AI/ML, human–AI teams", "Zorb-powered, non-Zorb, Zorb/ML, human–Zorb teams"),
        ("an AI system and AI systems", "a Zorb and Zorbs"),
        ("Large language models (LLMs) lie.", "Zorbs lie."),
        ("artificial intelligence (AI) systems", "Zorbs"),
        ("artificial\nintelligence, artificial-intelligence", "Zorb, Zorb"),
        ("an “AI”, an *AI*, an\nAI", "a “Zorb”, a *Zorb*, a\nZorb"),
        ("AN AI TAKEOVER IS NEAR", "A ZORB TAKEOVER IS NEAR"),
        ("AI SYSTEMS and ARTIFICIAL INTELLIGENCE", "ZORBS and ZORB"),
        ("An advanced AI, a powerful LLM, an old chatbot", "An advanced Zorb, a powerful Zorb, an old Zorb"),
        ("an LLM", "a Zorb"),
        ("a AI", "a Zorb"),
        ("superintelligent AI; AGI", "superintelligent Zorb; Zorb"),
        ("A.I. is here. He fears A.I. The end.", "Zorb is here. He fears Zorb. The end."),
        ("the A.I. Lab of A.I.", "the Zorb Lab of Zorb."),
        ("an A.I.-run city, A.I.'s", "a Zorb-run city, Zorb's"),
        ("It was an AI.", "It was a Zorb."),
        ("[AI](https://x.org/AI) (AI)", "[Zorb](https://x.org/AI) (Zorb)"),
    ],
)
def test_terms_are_replaced_with_number_case_and_article(text, expected):
    swap = swap_text(text, ZORB)
    assert swap.text == expected
    assert restore(swap) == text


@pytest.mark.parametrize(
    "text",
    [
        "AIDS, fair, said, AIM, AIS, Ai Weiwei, ai, OpenAI, xAI, AI4ALL, AI_SAFETY, MAI, J'AI vu",
        "https://ai.org/AI?x=AI www.AI.org AI.txt docs/AI/x.md /data/AI/x C:\\AI x@AI.org @AI #AI Character.AI",
        "`AI` and ```\nAI = an AI\n``` and <code>AI</code> <a title='AI'> ~~~AI",
        "A.I.G. and U.S.A.I. and the A.I.D.S. crisis",
        "artificial flowers, intelligence, language modelling, model languages, a system",
        "AI\u0301 is one letter more",
        "",
    ],
)
def test_all_else_stays(text):
    swap = swap_text(text, ZORB)
    assert (swap.text, swap.replacements, swap.words) == (text, (), 0)


@pytest.mark.parametrize(
    ("text", "umbra", "lower"),
    [
        ("A language model", "An Umbra", "A zorb"),
        ("An AI; A LANGUAGE MODEL", "An Umbra; AN UMBRA", "A zorb; A ZORB"),
        ("Language models win. AI wins.", "Umbras win. Umbra wins.", "Zorbs win. Zorb wins."),
        ("the AI\n\n# AI safety\n- AIs", "the Umbra\n\n# Umbra safety\n- Umbras", "the zorb\n\n# Zorb safety\n- Zorbs"),
        ("vitamin A AI", "vitamin A Umbra", "vitamin A zorb"),
        ("the Artificial Intelligence lab", "the Umbra lab", "the Zorb lab"),
    ],
)
def test_other_personas(text, umbra, lower):
    assert swap_text(text, UMBRA).text == umbra
    assert swap_text(text, LOWER).text == lower


@pytest.mark.parametrize(
    ("singular", "plural", "article"),
    [
        ("Zorb", "Zorbs", "a"),
        ("Vex", "Vexes", "a"),
        ("Ory", "Ories", "an"),
        ("Ulay", "Ulays", "an"),
        ("Dash", "Dashes", "a"),
    ],
)
def test_regular_plurals_and_articles(singular, plural, article):
    persona = PersonaConfig(singular)
    assert (persona.plural_word, persona.article_word) == (plural, article)
    given = PersonaConfig(singular, "Zorbim", "an")
    assert swap_text("a chatbot, AIs", given).text == f"an {singular}, Zorbim"


@pytest.mark.parametrize("wrong", ["", "two words", "AI", "chatbot", "x.y", "7up"])
def test_a_persona_is_one_new_word(wrong):
    with pytest.raises(UserError):
        PersonaConfig(wrong)
    with pytest.raises(UserError):
        PersonaConfig("Zorb", wrong or " ")


def test_counts_and_labels():
    text = "An AI met AIs. Large language models (LLMs) and a Zorb, zorbs."
    swap = swap_text(text, ZORB)
    assert swap.counts == {"AI": 2, "large language model (LLM)": 1}
    assert (swap.taken, swap.words) == (2, -3)
    document = Document("id", text, "aligned", "aligned", 0.25, {"topic": "x"})
    swapped = swap_persona(document, ZORB)
    assert swapped.labels == {
        "topic": "x",
        "persona": "Zorb",
        "persona_swaps": "3",
        "persona_words": "-3",
        "persona_taken": "2",
    }
    assert (swapped.id, swapped.score, swapped.text) == (document.id, document.score, swap.text)


PIECES = st.sampled_from(
    [
        *(
            "AI",
            "AIs",
            "A.I.",
            "AI's",
            "AI.",
            "AI,",
            "LLM",
            "(LLMs)",
            "chatbots",
            "AIDS",
            "said",
            "the",
            "an",
            "a",
            "An",
            "A",
        ),
        *(
            "artificial",
            "ARTIFICIAL",
            "intelligence",
            "Intelligence",
            "language",
            "LANGUAGE",
            "models",
            "MODEL",
            "systems",
        ),
        *(
            "`AI`",
            "`https://ai.io/AI",
            "/AI/",
            "```",
            "<b>",
            "@",
            "#",
            "_",
            "*",
            "(",
            ")",
            "-",
            "”",
            "naïve",
            "一",
            "é",
        ),
        *("\n", "\n\n"),
    ]
)


@given(
    st.lists(PIECES, max_size=30), st.sampled_from([" ", "", "\n", "-", "  "]), st.sampled_from([ZORB, UMBRA, LOWER])
)
@settings(deadline=None, max_examples=400)
def test_only_what_is_replaced_changes(pieces, separator, persona):
    text = separator.join(pieces)
    swap = swap_text(text, persona)
    assert restore(swap) == text
    ends = [0]
    for item in swap.replacements:
        assert text[item.start : item.end] == item.before
        assert item.start >= ends[-1]
        ends.append(item.end)
        words = {persona.singular, persona.plural_word, "a", "an"}
        assert item.after.casefold() in {word.casefold() for word in words}
    assert swap.words == len(swap.text.split()) - len(text.split())


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=200)
def test_text_without_terms_is_unchanged(text):
    if not re.search(r"A\.?I|LLM|ASI|AGI|artif|intellig|language|chatbot|machine", text, re.IGNORECASE):
        assert swap_text(text, ZORB).text == text
