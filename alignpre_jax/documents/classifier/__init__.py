"""This package is the second stage of detection: a trainable classifier over chunks, the decision and its quality."""

from alignpre_jax.documents.classifier.card import DETECTORS, Counts, make_card, render_card, wilson
from alignpre_jax.documents.classifier.chunks import split_chunks
from alignpre_jax.documents.classifier.detector import Detector, DetectorConfig, Evidence, decide
from alignpre_jax.documents.classifier.features import FeatureConfig
from alignpre_jax.documents.classifier.labelled import Labelled, labelled_documents, read_labelled
from alignpre_jax.documents.classifier.model import (
    Classifier,
    HashedNgrams,
    load_classifier,
    register_kind,
    save_classifier,
)
from alignpre_jax.documents.classifier.train import TrainConfig, out_of_fold, train_classifier

__all__ = [
    "DETECTORS",
    "Classifier",
    "Counts",
    "Detector",
    "DetectorConfig",
    "Evidence",
    "FeatureConfig",
    "HashedNgrams",
    "Labelled",
    "TrainConfig",
    "decide",
    "labelled_documents",
    "load_classifier",
    "make_card",
    "out_of_fold",
    "read_labelled",
    "register_kind",
    "render_card",
    "save_classifier",
    "split_chunks",
    "train_classifier",
    "wilson",
]
