"""This module has the protocol of classifiers of texts, the classifier that comes with the package, and the loader.

A model file is JSON; nothing in it is executed:

    {"format": "alignpre_jax classifier", "version": 1, "kind": "hashed_ngrams", ...}

`kind` is looked up among the registered kinds (`register_kind`), and each kind defines the rest of its files.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Protocol

import numpy as np
from etils import epath

from alignpre_jax.documents.classifier.features import FeatureConfig, count_features, rarity_of, weigh
from alignpre_jax.foundation import PathLike, UserError, build, read_json, suggest, to_mapping, write_json

FORMAT, VERSION = "alignpre_jax classifier", 1
BUILTIN = "builtin"


class Classifier(Protocol):
    """A `Classifier` gives each text a probability of being AI discourse."""

    def probability(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float64[len(texts)], each in [0, 1]; the value of a text does not depend on the others."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HashedNgrams:
    """`HashedNgrams` is a logistic regression on hashed n-grams, which needs nothing but numpy.

    Attributes:
      features: which n-grams are counted.
      weights: int8[buckets], in steps of `step`.
      step: the size of one step of the weights.
      bias: the log-odds of a text without features.
      documents_with: uint16[buckets], the number of training chunks in which each bucket occurs.
      documents: the number of all training chunks. If there were more than 65,535, both numbers are divided by the same
        factor, so that they fit 16 bits.
    """

    features: FeatureConfig
    weights: np.ndarray
    step: float
    bias: float
    documents_with: np.ndarray
    documents: int

    def probability(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the probability that each text is AI discourse; float64[len(texts)]."""
        logits = np.empty(len(texts))
        for row, text in enumerate(texts):
            found, counts = count_features(text, self.features)
            logits[row] = weigh(found, counts, self._rarity) @ self._coefficients[found] + self.bias
        return 0.5 * (1 + np.tanh(0.5 * logits))  # the logistic function, without overflow

    @functools.cached_property
    def _rarity(self) -> np.ndarray:
        return rarity_of(self.documents_with, self.documents)

    @functools.cached_property
    def _coefficients(self) -> np.ndarray:
        return self.weights * self.step

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the model file; equal models give equal text."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": "hashed_ngrams",
            "features": to_mapping(self.features),
            "documents": self.documents,
            "step": self.step,
            "bias": self.bias,
            "weights_int8": _encoded(self.weights, "<i1"),
            "documents_with_uint16": _encoded(self.documents_with, "<u2"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "classifier") -> HashedNgrams:
        """Returns the model that `to_json` wrote, and raises `UserError` where the values are damaged."""
        try:
            features = build(FeatureConfig, values["features"], f"{where}: features")
            return cls(
                features=features,
                weights=_decoded(values["weights_int8"], "<i1", features.buckets),
                step=float(values["step"]),
                bias=float(values["bias"]),
                documents_with=_decoded(values["documents_with_uint16"], "<u2", features.buckets),
                documents=int(values["documents"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"a damaged model: {error!r}", where=where, fix="save or train the classifier again"
            ) from None


Maker = Callable[[Mapping[str, Any], str], Classifier]
_KINDS: dict[str, Maker] = {"hashed_ngrams": HashedNgrams.from_json}


def register_kind(kind: str, make: Maker) -> None:
    """Makes `load_classifier` understand model files of another kind.

    Args:
      kind: the value of "kind" in those files.
      make: makes a classifier from a file's content and its place, which is for error messages.
    """
    _KINDS[kind] = make


def save_classifier(classifier: HashedNgrams, path: PathLike) -> None:
    """Writes a trained classifier as a model file, whole or not at all."""
    write_json(path, classifier.to_json())


def load_classifier(name: PathLike = BUILTIN) -> Classifier:
    """Loads the classifier that comes with the package ("builtin"), or the one in a model file.

    Raises:
      UserError: the file is absent, is not a model file, or is of a kind that nobody has registered.
    """
    if name == BUILTIN:
        return builtin_classifier()
    path = epath.Path(name)
    if not path.exists():
        fix = f"give a model file, or {BUILTIN!r} for the classifier that comes with the package"
        raise UserError(f"there is no classifier {str(name)!r}", where="classifier", fix=fix)
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError("not a classifier's model file", where=str(path), fix="give a file that `alignpre` has written")
    if values.get("version") != VERSION:
        fix = "train it again, or use the version of the package that wrote it"
        raise UserError(f"a model file of version {values.get('version')}, not {VERSION}", where=str(path), fix=fix)
    kind = str(values.get("kind"))
    if kind not in _KINDS:
        raise UserError(f"a classifier of an unknown kind {kind!r}", where=str(path), fix=suggest(kind, _KINDS))
    return _KINDS[kind](values, str(path))


@functools.cache
def builtin_classifier() -> HashedNgrams:
    """Loads the classifier that comes with the package."""
    place = resources.files(__package__) / "model.json"
    with resources.as_file(place) as path:
        return HashedNgrams.from_json(read_json(path), str(path))


def _encoded(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array).astype(dtype).tobytes()).decode("ascii")


def _decoded(text: str, dtype: str, length: int) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype).reshape(length)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
