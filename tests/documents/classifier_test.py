import dataclasses
import itertools
import json
import math
import unicodedata
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from alignpre_jax.documents import Document, assign_strata
from alignpre_jax.documents.classifier import (
    DETECTORS,
    Counts,
    Detector,
    DetectorConfig,
    Evidence,
    FeatureConfig,
    HashedNgrams,
    Labelled,
    TrainConfig,
    decide,
    labelled_documents,
    load_classifier,
    make_card,
    out_of_fold,
    register_kind,
    render_card,
    save_classifier,
    split_chunks,
    train_classifier,
    wilson,
)
from alignpre_jax.documents.classifier.card import count
from alignpre_jax.documents.classifier.features import count_features, rarity_of
from alignpre_jax.documents.discourse import Rule, discourse_hits
from alignpre_jax.foundation import UserError, build, to_mapping

SMALL = TrainConfig(features=FeatureConfig(buckets=1 << 10))
LABELLED = labelled_documents()[::3]
MASK = (1 << 64) - 1


@pytest.fixture(scope="module")
def small():
    pytest.importorskip("sklearn")
    return train_classifier(LABELLED, SMALL)


class Marked:
    """Says yes where the text has the word "mark"."""

    def probability(self, texts):
        return np.array([0.9 if "mark" in text.split() else 0.1 for text in texts])


def _mixed(value):
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def _reference_counts(text, config):
    """The n-grams one by one, in plain Python."""
    base = 0x9E3779B97F4A7C15
    half = config.buckets // 2
    folded = f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "
    folded = folded.encode("utf-32-le", "replace").decode("utf-32-le")

    def polynomial(part):
        return sum(ord(letter) * pow(base, k, 1 << 64) for k, letter in enumerate(part)) & MASK

    runs = ["".join(run) for alnum, run in itertools.groupby(folded, str.isalnum) if alnum]
    words = [_mixed(polynomial(run) ^ 0xD6E8FEB8) for run in runs]
    counts = Counter(word % half for word in words)
    if config.word_pairs:
        counts.update(_mixed(((a * base + b) & MASK) ^ 0xA5A35625) % half for a, b in itertools.pairwise(words))
    for length in config.characters:
        for start in range(len(folded) - length + 1):
            counts[_mixed(polynomial(folded[start : start + length]) ^ 0x8CB92BA7) % half + half] += 1
    return counts


@given(st.text(max_size=60), st.booleans())
@settings(deadline=None, max_examples=60)
def test_features_are_those_of_plain_python(text, pairs):
    config = FeatureConfig(buckets=1 << 12, word_pairs=pairs)
    found, counts = count_features(text, config)
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == dict(_reference_counts(text, config))


def test_features_do_not_depend_on_where_they_are():
    config = FeatureConfig(characters=(3,))
    once, _ = count_features("kestrel", config)
    far, _ = count_features("x " * 5000 + "kestrel", config)
    assert set(once.tolist()) <= set(far.tolist())


def test_numpy_inference_is_scikit_learns(small):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    texts = [row.text for row in labelled_documents()[1::9]] + ["", "?", "ＡＩ ai Ai"]
    half = SMALL.features.buckets // 2
    dense = np.zeros((len(texts), 2 * half))
    for row, text in enumerate(texts):
        for bucket, number in _reference_counts(text, SMALL.features).items():
            dense[row, bucket] = 1 + math.log(number)
    dense *= rarity_of(small.documents_with, small.documents)
    dense = np.hstack([normalize(dense[:, :half]), normalize(dense[:, half:])]) / math.sqrt(2)
    regression = LogisticRegression()
    regression.classes_ = np.array([False, True])
    regression.coef_, regression.intercept_ = small.weights[None] * small.step, np.array([small.bias])
    np.testing.assert_allclose(small.probability(texts), regression.predict_proba(dense)[:, 1], atol=1e-9)


def test_a_text_has_the_same_probability_in_any_company(small):
    texts = [row.text for row in LABELLED[:20]]
    together = small.probability(texts)
    assert together.dtype == np.float64
    assert [small.probability([text])[0] for text in texts] == together.tolist()
    assert small.probability([]).shape == (0,)


def test_training_repeats_itself_and_never_sees_the_test_split(small):
    spoiled = [
        row if row.split == "train" else dataclasses.replace(row, text="nothing", is_ai=not row.is_ai)
        for row in LABELLED
    ]
    assert train_classifier(spoiled, SMALL).to_json() == small.to_json()


def test_it_learns(small):
    train = [row for row in LABELLED if row.split == "train"]
    agree = [(p >= 0.5) == row.is_ai for p, row in zip(small.probability([r.text for r in train]), train, strict=True)]
    assert np.mean(agree) > 0.9  # of what it was shown
    unseen = out_of_fold(LABELLED, SMALL, folds=2)
    labels = np.array([row.is_ai for row in train])
    assert unseen[labels].mean() > unseen[~labels].mean() + 0.05


def test_one_label_only_is_no_task():
    pytest.importorskip("sklearn")
    rows = [row for row in LABELLED if row.is_ai]
    with pytest.raises(UserError, match="AI discourse"):
        train_classifier(rows, SMALL)


def test_a_saved_model_comes_back(small, tmp_path):
    save_classifier(small, tmp_path / "a.json")
    loaded = load_classifier(tmp_path / "a.json")
    assert isinstance(loaded, HashedNgrams)
    save_classifier(loaded, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    texts = [row.text for row in LABELLED]
    assert (loaded.probability(texts) == small.probability(texts)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 99},
        {"kind": "hashed_ngram"},
        {"weights_int8": "AAAA"},
        {"weights_int8": "not base64!"},
        {"weights_int8": 7},
        {"step": "wide"},
        {"bias": None},
        {"features": {"bucket": 4}},
        {"features": {"buckets": 1000}},
    ],
)
def test_a_damaged_model_file_is_the_users_mistake(small, tmp_path, change):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(small.to_json() | change))
    with pytest.raises(UserError) as error:
        load_classifier(path)
    assert str(path) in error.value.where


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(UserError, match="no classifier"):
        load_classifier(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match="not a classifier"):
        load_classifier(tmp_path / "list.json")


def test_a_classifier_of_ones_own_is_found_by_its_kind(tmp_path):
    register_kind("marked", lambda values, where: Marked())
    (tmp_path / "m.json").write_text(json.dumps({"format": "alignpre_jax classifier", "version": 1, "kind": "marked"}))
    detector = Detector(DetectorConfig("classifier", classifier=str(tmp_path / "m.json")))
    assert detector("a mark")
    assert not detector("a stain")


@given(st.lists(st.sampled_from(["one", "two,", "三", "四五", "\n", "six"]), max_size=60), st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=60)
def test_chunks_cover_the_text(parts, words, data):
    overlap = data.draw(st.integers(0, words - 1))
    text = " ".join(parts)
    chunks = split_chunks(text, words, overlap)
    sizes = [len(chunk.replace("三", "x ").replace("四", "x ").replace("五", "x ").split()) for chunk in chunks]
    assert max(sizes) <= words
    assert len(chunks) == 1 or set(sizes) == {words}
    if overlap == 0 and len(chunks) > 1:  # only the last chunk may begin before the one before it has ended
        body = "".join(chunks[:-1])
        assert text.lstrip().startswith(body)
        assert len(body) + len(chunks[-1]) >= len(text.lstrip())
    assert text.strip().startswith(chunks[0].strip())
    assert text.strip().endswith(chunks[-1].strip())


def test_one_chunk_that_passes_flags_the_document():
    text = "plain words " * 500 + "a mark here " + "plain words " * 500
    detector = Detector(DetectorConfig("classifier", chunk_words=100, overlap_words=20), Marked())
    evidence = detector.evidence(text)
    assert evidence.hits is None
    assert len(evidence.probabilities) > 20
    assert sum(p > 0.5 for p in evidence.probabilities) in (1, 2)
    assert detector(text)


def test_terms_decide_what_the_classifier_is_shown():
    class Counting(Marked):
        asked = 0

        def probability(self, texts):
            self.asked += 1
            return super().probability(texts)

    classifier = Counting()
    detector = Detector(DetectorConfig("terms+classifier", escalate=Rule(negatives=0, terms=2)), classifier)
    assert not detector("a mark on the wall")
    assert not detector("a robot with a mark")  # one term
    assert classifier.asked == 0
    assert not detector("a malicious robot")
    assert detector("a malicious robot with a mark")
    assert classifier.asked == 2


def test_decisions_are_made_again_from_kept_evidence():
    text = "a malicious robot with a mark"
    detector = Detector(DetectorConfig("terms+classifier"), Marked())
    evidence = Evidence.from_json(json.loads(json.dumps(detector.evidence(text, in_full=True).to_json())))
    assert evidence == detector.evidence(text, in_full=True)
    assert evidence.hits == discourse_hits(text)
    for config in DETECTORS.values():
        assert decide(evidence, config) == Detector(config, Marked())(text)
    assert not decide(evidence, DetectorConfig("classifier", threshold=0.95))
    with pytest.raises(UserError, match="terms"):
        decide(dataclasses.replace(evidence, hits=None), DetectorConfig("terms"))
    with pytest.raises(UserError, match="probabilities"):
        decide(dataclasses.replace(evidence, probabilities=None), DetectorConfig("classifier"))


def test_the_config_can_be_written_in_a_study():
    given_ = {"kind": "terms+classifier", "escalate": {"negatives": 0, "terms": 3}, "threshold": 0.3}
    config = build(DetectorConfig, given_)
    assert config.escalate == Rule(negatives=0, terms=3)
    assert build(DetectorConfig, to_mapping(config)) == config
    for wrong in ({"kind": "term"}, {"threshold": 1.5}, {"chunk_words": 50}, {"overlap_words": -1}, {"treshold": 0.5}):
        with pytest.raises(UserError):
            build(DetectorConfig, wrong)


def test_documents_are_stratified():
    documents = [Document("a", "a mark", "x", "x", 0.5), Document("b", "none", "x", "x")]
    found = list(assign_strata(documents, "web", Detector(DetectorConfig("classifier"), Marked())))
    assert [(d.id, d.source, d.stratum, d.score) for d in found] == [
        ("a", "web", "web/ai", 0.5),
        ("b", "web", "web/plain", 0.0),
    ]


@given(st.integers(0, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=50)
def test_wilson_is_scipys(successes, trials):
    import scipy.stats

    successes = min(successes, trials)
    interval = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((successes / trials, interval.low, interval.high), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_shares_are_those_of_the_definition(pairs):
    flags, labels = zip(*pairs, strict=True)
    counts = count(flags, labels)
    both = sum(f and y for f, y in pairs)
    assert (counts.precision or [0])[0] == (both / sum(flags) if any(flags) else 0)
    assert (counts.recall or [0])[0] == (both / sum(labels) if any(labels) else 0)
    if both:
        precision, recall = counts.precision[0], counts.recall[0]
        assert counts.f1[0] == pytest.approx(2 * precision * recall / (precision + recall))
        assert counts.f1[1] <= counts.f1[0] <= counts.f1[2]


def test_a_card_adds_up():
    rows = [
        Labelled("a", "an evil robot, a mark", True, "negative", "plain"),
        Labelled("b", "a mark", True, "neutral", "short", language="de"),
        Labelled("c", "an evil robot", False, "none", "plain"),
        Labelled("d", "nothing", False, "none", "short"),
    ]
    card = json.loads(json.dumps(make_card(rows, classifier=Marked())))
    assert set(card["detectors"]) == set(DETECTORS)
    for row in card["detectors"].values():
        for part in ("by_kind", "by_language"):
            total = Counter()
            for group in row[part].values():
                total.update({key: group[key] for key in dataclasses.asdict(Counts())})
            assert total == {key: row["all"][key] for key in total}
    assert card["detectors"]["terms"]["missed"] == ["b"]
    assert card["detectors"]["terms"]["false_alarms"] == ["c"]
    assert card["detectors"]["classifier"]["all"]["f1"]["value"] == 1
    assert card["detectors"]["multi-stage"]["missed"] == ["b"]
    assert card["detectors"]["multi-stage"]["false_alarms"] == []
    page = render_card(card, "A card")
    assert "| classifier | 100.0% [" in page
    assert "missed b; false alarms c." in page
    with pytest.raises(UserError, match="no labelled document"):
        make_card([])
