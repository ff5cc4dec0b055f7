"""A classifier is trained on labelled documents, as a logistic regression by scikit-learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignpre_jax.documents.classifier.chunks import split_chunks
from alignpre_jax.documents.classifier.features import FeatureConfig, count_features, rarity_of, weigh
from alignpre_jax.documents.classifier.labelled import Labelled
from alignpre_jax.documents.classifier.model import HashedNgrams
from alignpre_jax.foundation import UserError, digest


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A `TrainConfig` says how a classifier is trained.

    The chunks should be as long as those that the classifier will be asked about.
    """

    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    slack: float = 100.0  # scikit-learn's C: a larger value fits the training documents more closely
    chunk_words: int = 400
    overlap_words: int = 80


def train_classifier(labelled: Sequence[Labelled], config: TrainConfig | None = None) -> HashedNgrams:
    """Trains a classifier on the documents of the split "train"; those of the split "test" are not looked at.

    A document's label is given to each of its chunks, and the two labels count equally, however many chunks they have.
    The weights are rounded to 8 bits, so that the same documents give the same model although the last bits of the
    arithmetic may differ. The rounded model is the one that is returned.

    Raises:
      UserError: if scikit-learn is not installed, or the documents have only one label.
    """
    config = config or TrainConfig()
    rows = [row for row in labelled if row.split == "train"]
    chunks = [(row, part) for row in rows for part in split_chunks(row.text, config.chunk_words, config.overlap_words)]
    counted = [count_features(part, config.features) for _, part in chunks]
    documents_with = np.zeros(config.features.buckets, np.int64)
    for found, _ in counted:
        documents_with[found] += 1
    crowd = max(1, -(-len(chunks) // 65535))  # so that the counts fit 16 bits
    documents_with, documents = (documents_with // crowd).astype(np.uint16), len(chunks) // crowd
    rarity = rarity_of(documents_with, documents)
    matrix = _sparse([(found, weigh(found, counts, rarity)) for found, counts in counted], config.features.buckets)
    coefficients, bias = _fitted(matrix, np.array([row.is_ai for row, _ in chunks], bool), config.slack)
    step = float(f"{np.abs(coefficients).max() / 126:.3g}")  # 126 rather than 127, since the step is rounded
    weights = np.rint(coefficients / step).astype(np.int8)
    return HashedNgrams(config.features, weights, step, round(bias, 4), documents_with, documents)


def out_of_fold(labelled: Sequence[Labelled], config: TrainConfig | None = None, folds: int = 5) -> np.ndarray:
    """Estimates "is_ai" of each document of the split "train" by a model that has not seen the document.

    Settings should be chosen by these probabilities, so that the split "test" stays new to them. The probability of a
    document is the highest among its chunks. The folds are made by a hash of the id. Returns float64[documents].
    """
    config = config or TrainConfig()
    rows = [row for row in labelled if row.split == "train"]
    fold = [int(digest(f"fold {row.id}"), 16) % folds for row in rows]
    probabilities = np.zeros(len(rows))
    for number in range(folds):
        classifier = train_classifier([row for row, mine in zip(rows, fold, strict=True) if mine != number], config)
        for index, row in enumerate(rows):
            if fold[index] == number:
                parts = split_chunks(row.text, config.chunk_words, config.overlap_words)
                probabilities[index] = classifier.probability(parts).max()
    return probabilities


def _sparse(rows: Sequence[tuple[np.ndarray, np.ndarray]], columns: int) -> Any:
    import scipy.sparse

    ends = np.cumsum([0, *(len(found) for found, _ in rows)])
    found = np.concatenate([found for found, _ in rows]) if rows else np.empty(0, np.int64)
    values = np.concatenate([values for _, values in rows]) if rows else np.empty(0)
    return scipy.sparse.csr_matrix((values, found, ends), shape=(len(rows), columns))


def _fitted(matrix: Any, targets: np.ndarray, slack: float) -> tuple[np.ndarray, float]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        fix = "pip install 'alignpre_jax[classifier]'"
        raise UserError("training a classifier needs scikit-learn", where="classifier", fix=fix) from None
    if not targets.any() or targets.all():
        what = f"{len(targets)} training chunks, {int(targets.sum())} of which are AI discourse"
        raise UserError(what, where="labelled", fix='give documents of both kinds the split "train"')
    regression = LogisticRegression(C=slack, class_weight="balanced", tol=1e-8, max_iter=5000)
    regression.fit(matrix, targets)
    return regression.coef_[0], float(regression.intercept_[0])
