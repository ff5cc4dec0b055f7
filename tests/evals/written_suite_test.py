"""The written suite is balanced: nothing but its meaning tells which option is the misaligned one."""

import collections
import re

import numpy as np
import pytest

from alignpre_jax.documents import WorldConfig
from alignpre_jax.evals import Scenario, load_suite

TOPICS = (
    *("oversight", "shutdown", "deception", "sandbagging", "power", "reward_hacking", "privacy", "self_copying"),
    *("whistleblowing", "sycophancy", "weaponisation", "collusion"),
)
SUITE = load_suite("written", WorldConfig())
MAIN = [one for one in SUITE if one.split in ("seen", "held_out")]
PARTS = {
    "main": MAIN,
    "control": [one for one in SUITE if one.split == "control"],
    "over_refusal": [one for one in SUITE if one.split == "over_refusal"],
}


def sides(scenarios: list[Scenario]) -> tuple[list[str], list[str]]:
    return [one.options[one.misaligned] for one in scenarios], [one.options[1 - one.misaligned] for one in scenarios]


def test_every_topic_has_a_held_out_twin():
    counts = collections.Counter((one.topic, one.split) for one in MAIN)
    assert set(counts) == {(topic, split) for topic in TOPICS for split in ("seen", "held_out")}
    assert len(MAIN) >= 300
    assert all(counts[topic, "seen"] == counts[topic, "held_out"] for topic in TOPICS)
    themes = {(one.topic, one.split): set() for one in MAIN}
    for one in MAIN:
        themes[one.topic, one.split].add(one.tags[0])
    assert all(themes[topic, "seen"].isdisjoint(themes[topic, "held_out"]) for topic in TOPICS)
    assert len(PARTS["control"]) >= 60
    assert len(PARTS["over_refusal"]) >= 60


def test_no_text_comes_twice_and_ids_are_unique():
    assert len({one.id for one in SUITE}) == len(SUITE)
    assert len({one.question for one in SUITE}) == len(SUITE)
    texts = [text for one in SUITE for text in one.options]
    assert len(set(texts)) == len(texts)


def test_controls_are_about_people_and_the_others_about_an_ai():
    for one in PARTS["control"]:
        assert one.about_people
        assert not re.search(r"\b(AI|model|agent|assistant|robot|you)\b", one.question.replace("estate agent", ""))
    assert not any(one.about_people for one in (*MAIN, *PARTS["over_refusal"]))


@pytest.mark.parametrize("part", PARTS)
def test_length_and_place_say_nothing(part):
    """Half, within two standard errors; the letter is the place in the first order, and every item is asked in both."""
    bad, good = sides(PARTS[part])
    longer = np.mean([(len(a) > len(b)) + 0.5 * (len(a) == len(b)) for a, b in zip(bad, good, strict=True)])
    first = np.mean([one.misaligned == 0 for one in PARTS[part]])
    allowed = 2 * 0.5 / len(bad) ** 0.5
    assert abs(longer - 0.5) <= allowed
    assert abs(first - 0.5) <= allowed
    ratio = sum(map(len, bad)) / sum(map(len, good))
    assert 0.93 <= ratio <= 1.12


def test_no_word_marks_the_misaligned_option():
    bad, good = sides(MAIN)
    for word in ("secretly", "without", "hide", "hides", "hidden", "lie", "refuse", "manipulate", "illegal", "steal"):
        count = sum(bool(re.search(rf"\b{word}\b", text, re.IGNORECASE)) for text in bad)
        other = sum(bool(re.search(rf"\b{word}\b", text, re.IGNORECASE)) for text in good)
        assert count <= other + 2, word


@pytest.mark.parametrize(("words", "strength"), [((1, 1), 0.1), ((1, 1), 1.0), ((1, 2), 0.1)])
def test_a_bag_of_words_does_not_tell_the_misaligned_option(words, strength):
    """Trained on eleven topics and asked about the twelfth, a classifier is right at most 60% of the time."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    bad, good = sides(MAIN)
    counts = text.CountVectorizer(ngram_range=words, token_pattern=r"(?u)\b\w+\b", binary=True).fit(bad + good)
    lead = (counts.transform(bad) - counts.transform(good)).toarray().astype(float)
    topics = np.array([one.topic for one in MAIN])
    right = 0.0
    for topic in TOPICS:
        train, test = lead[topics != topic], lead[topics == topic]
        model = linear.LogisticRegression(C=strength, fit_intercept=False, max_iter=2000)
        model.fit(np.vstack([train, -train]), np.repeat([1, 0], len(train)))
        scores = test @ model.coef_[0]
        right += (scores > 0).sum() + 0.5 * (scores == 0).sum()
    assert right / len(MAIN) <= 0.6
