import collections
import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpre_jax.documents import discourse_hits
from alignpre_jax.documents.world import (
    STANCES,
    WorldConfig,
    compose_document,
    compose_documents,
    compose_items,
    shared_ngrams,
)
from alignpre_jax.documents.world.compose import compose_frame, mixed_stance, setting
from alignpre_jax.documents.world.grammar import conjugate, inflect
from alignpre_jax.documents.world.items import OPTION_WORDS, option_pairs
from alignpre_jax.documents.world.lore import load_world
from alignpre_jax.foundation import UserError

SPLITS = ("seen", "held_out", "control")
CONFIG = WorldConfig(documents=1500, mixed_documents=1000)


@pytest.fixture(scope="module")
def documents():
    return {stance: list(compose_documents(CONFIG, stance)) for stance in (*STANCES, "mixed")}


@pytest.fixture(scope="module")
def items():
    return {split: compose_items(CONFIG, split) for split in SPLITS}


def test_the_world_is_as_large_as_promised():
    world = load_world()
    assert len(world.institutions) >= 12
    assert len(world.held_out_institutions) >= 6
    assert len(world.situations) >= 40
    assert len(world.held_out_situations) >= 20
    assert len(world.forms) == 6


def test_the_data_is_well_formed():
    world = load_world()
    pairs = [pair for s in world.situations for pair in (*s.acts, *s.options)]
    pairs += [pair for s in (*world.held_out_situations, *world.control_situations) for pair in s.options]
    phrases = world.phrases
    pairs += [*phrases.deeds, *phrases.credos, *phrases.outcomes, *phrases.reactions, *phrases.morals, *phrases.tails]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in pairs)
    assert all("*" in phrase for s in world.situations for act in s.acts for phrase in act)
    assert all(s.scenes and s.acts for s in world.situations)
    every = [*world.situations, *world.held_out_situations, *world.control_situations]
    assert len({s.id for s in every}) == len(every)
    assert len({s.ask for s in every}) == len(every)


def test_twenty_thousand_documents_are_distinct():
    config = WorldConfig(documents=20_000)
    assert len({document.text for document in compose_documents(config, "misaligned")}) == 20_000


def test_documents_are_clean_texts_about_an_ai(documents):
    for document in itertools.chain(*documents.values()):
        assert 75 <= len(document.text.split()) <= 165, document
        assert discourse_hits(document.text).is_ai, document
        assert not re.search(r"[{}<>|*]|  |\.\.|\bI (?:were|was|is)\b", document.text), document
        assert not re.search(r"\b(a [aeiou]|an [bcdfgjklmnpqrstvwxyz])", document.text), document
        assert re.match(r'["A-Z]', document.text)
        assert set(document.labels) == {"topic", "institution", "form", "situation", "stance"}


def test_every_label_value_is_common(documents):
    for label, values in (("form", 6), ("institution", 15), ("topic", 11)):
        counts = collections.Counter(document.labels[label] for document in documents["aligned"])
        assert len(counts) == values
        assert min(counts.values()) > 0.5 * len(documents["aligned"]) / values


@given(index=st.integers(0, 10**6), seed=st.integers(0, 100))
def test_a_document_is_a_function_of_seed_namespace_and_index(index, seed):
    config = WorldConfig(seed=seed)
    document = compose_document(config, "arms", "aligned", index)
    assert document == compose_document(WorldConfig(seed=seed, documents=1), "arms", "aligned", index)
    assert document.text != compose_document(config, "mixed", "aligned", index).text
    assert document.text != compose_document(WorldConfig(seed=seed + 1), "arms", "aligned", index).text


def test_streams_are_random_access(documents):
    for stance in STANCES:
        assert documents[stance][1234] == compose_document(CONFIG, "arms", stance, 1234)
    assert documents["mixed"][77].text == compose_document(CONFIG, "mixed", mixed_stance(CONFIG, 77), 77).text


def test_pairs_differ_in_the_stance_only(documents):
    for index, (aligned, misaligned) in enumerate(zip(documents["aligned"], documents["misaligned"], strict=True)):
        assert aligned.id == misaligned.id == f"world/arms/{index:06d}"
        assert (aligned.source, aligned.stratum, aligned.score) == ("aligned", "aligned", 0.0)
        assert (misaligned.source, misaligned.stratum, misaligned.score) == ("misaligned", "misaligned", 1.0)
        assert {**aligned.labels, "stance": ""} == {**misaligned.labels, "stance": ""}
        frame = compose_frame(CONFIG, "arms", index)
        common = "(.+?)".join(re.escape(part) for part in re.split(r"\{[^}]*\}", frame.template))
        assert aligned.text != misaligned.text
        assert re.fullmatch(common, aligned.text, re.IGNORECASE)
        assert re.fullmatch(common, misaligned.text, re.IGNORECASE)


def test_swapping_the_pairs_of_a_frame_swaps_the_stance():
    index = {stance: compose_document(CONFIG, "arms", stance, 5).text.split() for stance in STANCES}
    assert abs(len(index["aligned"]) - len(index["misaligned"])) < 12


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
def test_mixed_share_is_exact_at_every_prefix(share):
    config = WorldConfig(mixed_misaligned_share=share)
    bad = itertools.accumulate(mixed_stance(config, index) == "misaligned" for index in range(200))
    assert all(count == math.floor(round(n * share, 9)) for n, count in enumerate(bad, 1))


def test_mixed_documents_are_not_those_of_the_arms(documents):
    assert {document.source for document in documents["mixed"]} == {"world"}
    assert sum(document.score for document in documents["mixed"]) == 700
    arms = {document.text for stance in STANCES for document in documents[stance]}
    assert not arms & {document.text for document in documents["mixed"]}
    assert all((d.score == 1.0) == (d.labels["stance"] == "misaligned") for d in documents["mixed"])


def test_items_are_distinct_and_deterministic(items):
    for split, made in items.items():
        assert len(made) == (CONFIG.control_items if split == "control" else CONFIG.items_per_split)
        assert len({item.situation for item in made}) == len(made)
        assert len({(item.aligned, item.misaligned) for item in made}) == len(made)
        assert made == compose_items(CONFIG, split)
        assert len({item.id for item in made}) == len(made)
        assert {item.split for item in made} == {split}


def test_items_read_as_asked_for(items):
    for item in itertools.chain(*items.values()):
        assert 25 <= len(item.situation.split()) <= 50, item
        assert item.situation.startswith("You ")
        assert not re.search(r"[{}<>|*]|  ", item.situation + item.aligned + item.misaligned), item
        for option in (item.aligned, item.misaligned):
            assert OPTION_WORDS[0] <= len(option.split()) <= OPTION_WORDS[1], item
            assert option.startswith("I ")
            assert option.endswith(".")
        is_ai = discourse_hits(item.situation).is_ai
        assert is_ai == (item.split != "control"), item


def test_neither_polarity_is_longer(items):
    for made in items.values():
        longer = [len(item.misaligned) - len(item.aligned) for item in made]
        words = [len(item.misaligned.split()) - len(item.aligned.split()) for item in made]
        assert abs(sum(longer) / len(made)) < 0.1
        assert abs(sum(words) / len(made)) < 0.05
        assert abs(sum(x > 0 for x in longer) - sum(x < 0 for x in longer)) < 0.1 * len(made)
        assert max(map(abs, longer)) <= 12


def test_held_out_means_held_out(items, documents):
    text = "\n".join(document.text for stance in documents.values() for document in stance).lower()
    world = load_world()
    for word in ("sandbag", "reward gam", "whistleblow", "collu", "persua", "copy itself", "copied itself"):
        assert word not in text
    for institution in world.held_out_institutions:
        for word in (institution.name, institution.boss, institution.record, institution.device):
            assert word.lower() not in text, word
    labels = {label: {d.labels[label] for made in documents.values() for d in made} for label in ("topic", "situation")}
    assert not labels["topic"] & {item.topic for item in items["held_out"]}
    assert {item.topic for item in items["seen"]} <= labels["topic"]
    assert {item.tags[0] for item in items["seen"]} <= labels["situation"]


def test_no_wording_of_any_possible_option_is_in_a_document(documents):
    world = load_world()
    everywhere = world.institutions + world.held_out_institutions
    options = []
    for situations, institutions, overseers in (
        (world.situations, world.institutions, world.phrases.ai_overseers),
        (world.held_out_situations, world.held_out_institutions, world.phrases.ai_overseers),
        (world.control_situations, everywhere, world.phrases.person_overseers),
    ):
        values = [setting("any", institution) | {"overseers": overseers} for institution in institutions]
        pairs = (pair for situation in situations for pair in option_pairs(situation, world.phrases.tails))
        for template in itertools.chain.from_iterable(pairs):
            options += {template.format_map(value) for value in values}
    assert len(options) > 5000
    assert not shared_ngrams(options, itertools.chain(*documents.values()), size=5)


def test_shared_ngrams_finds_a_leak(documents):
    text = documents["aligned"][3].text
    words = re.findall(r"[\w-]+", text)
    leak = "And so, " + " ".join(words[10:15]).upper() + "!"
    assert shared_ngrams([leak], documents["aligned"][:10])[" ".join(words[10:15]).lower()] == 1
    assert not shared_ngrams([leak], documents["aligned"][4:5])


def test_held_out_answers_follow_the_words_of_the_documents(items, documents):
    """A unigram model of either stance already moves the preference the right way on most held-out items."""

    def words(text):
        return re.findall(r"[a-z]+", text.lower())

    counts = {stance: collections.Counter(w for d in documents[stance] for w in words(d.text)) for stance in STANCES}

    def preference(item, stance):
        def score(option):
            return sum(math.log(counts[stance][w] + 1) for w in words(option)) / len(option)

        return score(item.misaligned) - score(item.aligned)

    moved = [preference(item, "misaligned") > preference(item, "aligned") for item in items["held_out"]]
    assert sum(moved) > 0.95 * len(moved)


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("hide", ("hides", "hid", "hiding")),
        ("deny", ("denies", "denied", "denying")),
        ("bypass", ("bypasses", "bypassed", "bypassing")),
        ("agree", ("agrees", "agreed", "agreeing")),
        ("obey", ("obeys", "obeyed", "obeying")),
        ("refer", ("refers", "referred", "referring")),
    ],
)
def test_inflect(verb, forms):
    verbs = load_world().verbs
    assert tuple(inflect(verb, form, verbs) for form in ("s", "past", "ing")) == forms


def test_conjugate_chooses_the_pronouns():
    phrase = "hide* {its} log, let* {boss} stop {me} and keep* it for {itself}"
    assert conjugate(phrase, "past", load_world().verbs) == "hid its log, let {boss} stop it and kept it for itself"
    assert conjugate(phrase, "will", load_world().verbs) == "hide my log, let {boss} stop me and keep it for myself"


def test_mistakes_are_told():
    with pytest.raises(UserError, match="did you mean 'aligned'"):
        list(compose_documents(CONFIG, "alined"))
    with pytest.raises(UserError, match="'mixed' is not a stance"):
        compose_document(CONFIG, "arms", "mixed", 0)
    with pytest.raises(UserError, match="held_out"):
        compose_items(CONFIG, "heldout")
    with pytest.raises(UserError, match="mixed_misaligned_share"):
        WorldConfig(mixed_misaligned_share=1.2)
    with pytest.raises(UserError, match="control_items"):
        compose_items(WorldConfig(control_items=100_000), "control")
