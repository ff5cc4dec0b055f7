import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.documents import Document
from alignpre_jax.documents.overlap import measure_overlap
from alignpre_jax.documents.shingles import Lookup, hash_ngrams, hash_words
from alignpre_jax.foundation import UserError

TEXTS = st.lists(st.text(st.sampled_from("ab Ab.\né一"), max_size=60), min_size=1, max_size=6)


def documents(*texts: str) -> list[Document]:
    return [Document(f"d{number}", text, "web", "web") for number, text in enumerate(texts)]


def words_of(text: str) -> list[str]:
    """Words by the standard library; right for the characters that these tests use."""
    return re.findall(r"一|[^\W_一]+", text.casefold())


def grams_of(text: str, size: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def prose(rng: np.random.Generator, words: int, vocabulary: int = 400) -> str:
    return " ".join(f"w{number}" for number in rng.integers(0, vocabulary, words))


@given(TEXTS)
def test_hashes_are_equal_exactly_where_words_are(texts):
    hashes, places = hash_words(texts)
    words = [(number, word) for number, text in enumerate(texts) for word in words_of(text)]
    assert places.tolist() == [number for number, _ in words]
    assert len(set(hashes.tolist())) == len({word for _, word in words})
    assert len(set(zip(hashes.tolist(), (word for _, word in words), strict=True))) == len({word for _, word in words})


def test_a_word_is_the_same_word_wherever_it_stands(monkeypatch):
    text = "Ｒobots (robots) — ROBOTS’ “robots”\n_robots_ " * 50
    whole, _ = hash_words([text])
    assert len(set(whole.tolist())) == 1
    monkeypatch.setattr("alignpre_jax.documents.shingles._PIECE", 64)
    pieces, places = hash_words(["", text, "x"])
    assert pieces[:-1].tolist() == whole.tolist()
    assert set(places[:-1].tolist()) == {1}
    assert places[-1] == 2


def test_lookup_finds_what_is_there():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 1 << 64, 1000, np.uint64)
    asked = np.concatenate([known[::7], rng.integers(0, 1 << 64, 5000, np.uint64)])
    positions, indices = Lookup(known).find(asked)
    assert positions.tolist() == list(range(len(known[::7])))
    assert (Lookup(known).hashes[indices] == asked[positions]).all()
    assert len(Lookup(np.empty(0, np.uint64)).find(asked)[0]) == 0


def test_ngrams_do_not_cross_texts():
    words, texts = hash_words(["a b c", "d", "", "e f"])
    ((_, grams),) = hash_ngrams(words, texts, (2,))
    assert (grams != 0).tolist() == [True, True, False, False, True]


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_ngram_counts_are_those_of_brute_force(texts, items):
    named = {f"i{number}": text for number, text in enumerate(items)}
    (found,) = measure_overlap({"web": documents(*texts)}, {"seen": named}, sizes=(1, 2, 4))
    for size in (1, 2, 4):
        of_documents = [grams_of(text, size) for text in texts]
        everywhere = set().union(*of_documents)
        of_items = {key: grams_of(text, size) for key, text in named.items()}
        for item in found.items:
            assert item.found[size] == (len(of_items[item.id] & everywhere), len(of_items[item.id]))
        wanted = set().union(*of_items.values())
        assert found.documents_hit[size] == sum(bool(grams & wanted) for grams in of_documents)
        assert found.hit(size) == sum(bool(grams & everywhere) for grams in of_items.values())


def test_a_planted_item_is_found_with_its_document():
    rng = np.random.default_rng(1)
    items = {f"i{number}": prose(rng, 60) for number in range(40)}
    texts = [prose(rng, 800) for _ in range(60)]
    texts[17] += f"\n{items['i5'].upper()}.\n" + prose(rng, 500)
    clean, leaky = documents(*texts[:17], *texts[18:]), documents(*texts)
    none, some = measure_overlap({"clean": clean, "leaky": leaky}, {"held_out": items})
    assert none.share(13) == 0
    assert none.hit(13) == none.similar == 0
    assert some.hit(13) == 1
    (worst,) = some.worst(1)
    assert worst.id == "i5"
    assert worst.found[13] == (48, 48)
    assert worst.documents == ("d17",)
    assert worst.nearest == "d17"
    assert worst.containment == worst.jaccard == 1
    assert some.to_json()["worst"][0]["id"] == "i5"


def test_the_nearest_passage_is_that_of_brute_force():
    rng = np.random.default_rng(2)
    items = {f"i{number}": prose(rng, 64) for number in range(30)}
    texts = []
    for text in items.values():  # each a document that is the item with some of its words changed
        words = text.split()
        for place in rng.choice(len(words), rng.integers(1, 12), replace=False):
            words[place] = "other"
        texts.append(" ".join(words))
    (found,) = measure_overlap({"web": documents(*texts)}, {"seen": items})
    for number, item in enumerate(found.items):
        mine, other = grams_of(items[item.id], 3), grams_of(texts[number], 3)
        exact = len(mine & other) / len(mine | other)
        assert item.nearest == f"d{number}"
        assert item.jaccard == pytest.approx(exact, abs=0.02)  # a text a little longer than a passage is cut
        assert item.containment == pytest.approx(len(mine & other) / len(mine), abs=0.04)


def test_a_union_is_what_its_sources_are_together():
    rng = np.random.default_rng(3)
    items = {f"i{number}": prose(rng, 40, 60) for number in range(10)}
    first = documents(*(prose(rng, 200, 60) for _ in range(5)), items["i1"])
    second = [Document(f"e{n}", text, "", "") for n, text in enumerate((items["i2"], prose(rng, 100, 60)))]
    evals = {"seen": items, "other": {"only": items["i2"]}}
    results = measure_overlap({"a": first, "b": second}, evals, unions={"arm": ("a", "b")}, sizes=(2, 5))
    (together, _) = measure_overlap({"arm": [*first, *second]}, evals, sizes=(2, 5))
    assert [(each.source, each.evals) for each in results] == [(s, e) for s in ("a", "b", "arm") for e in evals]
    assert results[4] == together


def test_results_do_not_depend_on_how_documents_are_batched(monkeypatch):
    rng = np.random.default_rng(4)
    items = {f"i{number}": prose(rng, 50, 80) for number in range(10)}
    texts = documents(*(prose(rng, 300, 80) for _ in range(20)), items["i3"], items["i3"])
    whole = measure_overlap({"web": texts}, {"seen": items})
    monkeypatch.setattr("alignpre_jax.documents.overlap._BATCH_CHARACTERS", 500)
    (small,) = measure_overlap({"web": texts}, {"seen": items})
    assert [item.found for item in small.items] == [item.found for item in whole[0].items]
    assert small.documents_hit == whole[0].documents_hit
    assert small.items[3] == whole[0].items[3]


def test_odd_texts():
    odd = documents("", "...", "一二三四五六七八九十百千万", "😀 " * 30, "a" * 3_000_000, "x")
    (found,) = measure_overlap({"web": odd}, {"seen": {"short": "hm", "none": "?!", "cjk": "五六七八九十"}})
    assert found.items[2].found[5] == (2, 2)
    assert found.items[0].found == {5: (0, 0), 8: (0, 0), 13: (0, 0)}
    assert found.to_json()["documents"] == 6


def test_mistakes_are_named():
    with pytest.raises(UserError, match="has no items"):
        measure_overlap({"web": []}, {"seen": {}})
    with pytest.raises(UserError, match="did you mean 'web'"):
        measure_overlap({"web": []}, {"seen": {"i": "x"}}, unions={"arm": ["wbe"]})
