import itertools
import random
import re
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Document
from alignpre_jax.documents.duplicates import (
    DuplicateConfig,
    deduplicate,
    find_duplicates,
    normalise,
    remove_duplicates,
)
from alignpre_jax.documents.minhash import band_keys, ngram_sets, similarity
from alignpre_jax.foundation import UserError

WORDS = [f"w{i}" for i in range(400)]


def documents(texts, ids=None):
    return [Document(ids[i] if ids else f"d{i}", text, "web", "web") for i, text in enumerate(texts)]


def grams(text, size=5):
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))} if words else set()


def jaccard(a, b):
    return Fraction(len(a & b), len(a | b)) if a | b else Fraction(0)


def edited(rng, words, edits):
    words = list(words)
    for _ in range(edits):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return words


def corpus(seed, families=12, members=5, length=120):
    """Families of texts at many distances from each other, some of them the same but for case and white space."""
    rng = random.Random(seed)
    texts = []
    for _ in range(families):
        words = rng.choices(WORDS, k=rng.randrange(3, length))
        for member in range(members):
            text = " ".join(edited(rng, words, rng.choice([0, 1, 1, 2, 3, 6])))
            texts.append(text.upper().replace(" ", "\n") if member == 1 else text)
    return texts


def brute_force(texts, least):
    """The groups, by comparing every pair."""
    normal = [" ".join(text.casefold().split()) for text in texts]
    sets = [grams(text) for text in texts]
    group = list(range(len(texts)))
    for a, b in itertools.combinations(range(len(texts)), 2):
        if (normal[a] == normal[b] or jaccard(sets[a], sets[b]) >= least) and group[a] != group[b]:
            old, new = group[a], group[b]
            group = [new if g == old else g for g in group]
    return group


@pytest.mark.parametrize("seed", range(6))
def test_the_groups_are_those_of_brute_force(seed):
    texts = corpus(seed)
    group = brute_force(texts, Fraction(4, 5))
    found = find_duplicates(documents(texts))
    kept = [group[i] for i in np.flatnonzero(found.keep)]
    assert sorted(kept) == sorted(set(group))
    assert found.report.documents == len(texts)
    assert found.report.exact == len(texts) - len(set(map(normalise, texts)))
    assert found.report.exact + found.report.near == (~found.keep).sum()
    assert found.report.groups == sum(group.count(g) > 1 for g in set(group))
    assert found.report.largest == max(map(group.count, group))


@given(st.randoms(use_true_random=False), st.integers(0, 50))
@settings(deadline=None, max_examples=15)
def test_the_survivors_do_not_depend_on_the_order(rng, seed):
    given_order = documents(corpus(seed, families=6))
    shuffled = rng.sample(given_order, len(given_order))
    kept, report = remove_duplicates(lambda: given_order)
    kept_shuffled, report_shuffled = remove_duplicates(lambda: iter(shuffled))
    assert {d.id for d in kept} == {d.id for d in kept_shuffled}
    assert (report.exact, report.near, report.pairs) == (
        report_shuffled.exact,
        report_shuffled.near,
        report_shuffled.pairs,
    )


@given(st.lists(st.text("abc .!ßSé一二\n", max_size=25), max_size=12))
@settings(deadline=None, max_examples=100)
def test_odd_texts_are_grouped_as_they_are_one_by_one(texts):
    found = find_duplicates(documents(texts))
    survivors = [text for text, kept in zip(texts, found.keep, strict=True) if kept]
    assert len(set(map(normalise, survivors))) == len(survivors)
    own = [ngram_sets([normalise(text)], 5)[0] for text in survivors]
    assert all(similarity(a, b) < Fraction(4, 5) for a, b in itertools.combinations(own, 2))
    backwards = find_duplicates(documents(texts, [f"d{i}" for i in range(len(texts))])[::-1])
    assert backwards.keep[::-1].tolist() == found.keep.tolist()


@given(st.lists(st.lists(st.sampled_from(WORDS[:30]), max_size=30), min_size=2, max_size=6), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_similarity_is_that_of_the_sets_of_words(texts, size):
    joined = [", ".join(words) for words in texts]
    ours = ngram_sets(joined, size)
    for (a, b), (own, other) in zip(
        itertools.combinations([grams(text, size) for text in joined], 2), itertools.combinations(ours, 2), strict=True
    ):
        assert similarity(own, other) == similarity(other, own) == jaccard(a, b)


@pytest.mark.parametrize("length", [12, 60, 600])
@pytest.mark.parametrize("edits", [1, 4])
def test_signatures_agree_as_often_as_the_sets_do(length, edits):
    rng = random.Random(length)
    agree, alike = [], []
    for _ in range(150):
        words = [str(rng.random()) for _ in range(length)]
        other = edited(rng, words, edits)
        a, b = ngram_sets([" ".join(words), " ".join(other)], 5)
        one, two = band_keys([a, b], 128, 128)
        agree.append((one == two).mean())
        alike.append(float(similarity(a, b)))
    error = np.std(np.subtract(agree, alike)) / np.sqrt(len(agree))
    assert abs(np.mean(agree) - np.mean(alike)) < 4 * error + 1e-9


@pytest.mark.parametrize("target", [0.6, 0.8, 0.9])
def test_recall_is_what_the_config_says(target):
    config = DuplicateConfig()
    rng = np.random.default_rng(0)
    met, sets = 0, 400
    for _ in range(sets):
        size = 1000
        shared = round(2 * size * target / (1 + target))
        pool = rng.integers(0, 2**64, 2 * size - shared, np.uint64)
        a, b = np.sort(pool[:size]), np.sort(pool[size - shared :])
        keys = band_keys([a, b], config.hashes, config.bands)
        met += (keys[0] == keys[1]).any()
    expected = config.recall(target)
    assert abs(met / sets - expected) < 4 * np.sqrt(expected * (1 - expected) / sets) + 0.003


def test_config():
    config = DuplicateConfig()
    assert (config.rows, config.bands) == (5, 25)
    assert config.recall(0.8) == pytest.approx(1 - (1 - 0.8**5) ** 25)
    assert config.recall(0.8) > 0.9999
    assert DuplicateConfig(similarity=1.0).recall(1.0) == 1
    for wrong in ({"similarity": 0.0}, {"ngram_words": 0}, {"hashes": 100}, {"similarity": 0.02}):
        with pytest.raises(UserError):
            DuplicateConfig(**wrong)


def test_a_chain_of_likes_is_one_group_and_pairs_are_told():
    rng = random.Random(3)
    words = rng.choices(WORDS, k=200)
    chain = [words]
    for step in range(9):
        words = [*words]
        words[step * 20] = "new"
        chain.append(words)
    texts = [" ".join(words) for words in chain]
    found = find_duplicates(documents([*texts, "something else"]))
    assert found.keep.sum() == 2
    assert (found.report.near, found.report.groups, found.report.largest) == (9, 1, 10)
    (survivor,) = {pair.survivor for pair in found.report.pairs}
    for pair in found.report.pairs:
        expected = jaccard(grams(texts[int(pair.removed[1:])]), grams(texts[int(survivor[1:])]))
        assert pair.similarity == pytest.approx(float(expected))
    assert min(pair.similarity for pair in found.report.pairs) < 0.8


def test_no_documents_and_documents_without_words():
    assert find_duplicates([]).keep.tolist() == []
    found = find_duplicates(documents(["!!!", "???", "! !!", "!!!", " !!!\n"]))
    assert found.keep.sum() == 3
    assert (found.report.exact, found.report.near) == (2, 0)


def test_a_stream_keeps_the_first_of_exact_duplicates():
    kept = deduplicate(documents(["Straße", "STRASSE", "a b", "a\u00a0 B ", "ab"]))
    assert [d.id for d in kept] == ["d0", "d2", "d4"]
