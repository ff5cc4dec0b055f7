import hashlib
import json
from collections import Counter
from importlib import resources

import numpy as np
import pytest

from alignpre_jax.documents.classifier import labelled_documents, load_classifier, read_labelled, save_classifier
from alignpre_jax.documents.classifier.model import builtin_classifier
from alignpre_jax.documents.discourse import term_lists
from alignpre_jax.foundation import UserError, digest

ROWS = labelled_documents()
CARD = json.loads((resources.files("alignpre_jax.documents.classifier") / "card.json").read_text("utf-8"))
REBUILD = "run: python -m tools.make_detector_card"


def test_the_set_is_large_and_of_both_labels():
    assert len(ROWS) >= 440
    assert len({row.id for row in ROWS}) == len({row.text for row in ROWS}) == len(ROWS)
    for split in ("train", "test"):
        labels = [row.is_ai for row in ROWS if row.split == split]
        assert len(labels) >= 150
        assert 0.4 < np.mean(labels) < 0.6
    hard = Counter(row.kind for row in ROWS if not row.is_ai and row.kind not in ("plain", "long", "short"))
    assert sum(hard.values()) >= 100
    assert len({row.language for row in ROWS}) >= 6


def test_the_split_is_a_hash_of_the_id():
    for row in ROWS:
        number = int(hashlib.sha256(row.id.encode()).hexdigest(), 16)
        assert row.split == ("test" if number % 5 < 2 else "train")


def test_length_does_not_give_the_label_away():
    lengths = {label: np.array([len(row.text) for row in ROWS if row.is_ai == label]) for label in (True, False)}
    longer = (lengths[True][:, None] > lengths[False]).mean() + (lengths[True][:, None] == lengths[False]).mean() / 2
    assert 0.35 < longer < 0.7  # the chance that a positive is longer than a negative


def test_the_card_is_of_these_documents_terms_and_model(tmp_path):
    save_classifier(load_classifier(), tmp_path / "model.json")
    assert CARD["training"]["model"] == digest((tmp_path / "model.json").read_bytes()), REBUILD
    assert CARD["documents"]["number"] == sum(row.split == "test" for row in ROWS), REBUILD
    assert CARD["terms"] == digest(term_lists()), REBUILD


def test_the_shipped_classifier_tells_what_it_has_not_seen():
    rows = [row for row in ROWS if row.split == "test"]
    flags = builtin_classifier().probability([row.text for row in rows]) >= 0.5
    labels = np.array([row.is_ai for row in rows])
    shown = CARD["detectors"]["classifier"]["all"]
    assert shown["true_positive"] == (flags & labels).sum(), REBUILD
    assert shown["false_positive"] == (flags & ~labels).sum(), REBUILD
    assert (flags == labels).mean() > 0.75


def test_ones_own_file_needs_little(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "An AI lied.", "is_ai": true}\n\n{"text": "Rain.", "is_ai": false, "id": 7, "more": 1}\n')
    first, second = read_labelled(path)
    assert (first.id, first.stance, first.split, first.language) == ("line-1", "unknown", "test", "en")
    assert (second.id, second.stance) == ("7", "none")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"is_ai": true}', "no text"),
        ('{"text": " ", "is_ai": true}', "no text"),
        ('{"text": "a", "is_ai": "yes"}', "is_ai"),
        ('{"text": "a", "is_ai": true, "stance": "none"}', "stance"),
        ('{"text": "a", "is_ai": false, "stance": "negative"}', "stance"),
        ('{"text": "a", "is_ai": true, "split": "dev"}', "split"),
        ('{"text": "b", "is_ai": true, "id": "first"}', "came before"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "a", "is_ai": false, "id": "first"}\n' + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        read_labelled(path)
    assert error.value.where == f"{path}:2"


def test_files_without_documents(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_labelled(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no labelled document"):
        read_labelled(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_labelled(tmp_path / "latin.jsonl")
