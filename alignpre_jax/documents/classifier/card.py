"""A card says how good a detector is: its precision, recall and F1 on labelled documents, as data and as a page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alignpre_jax.documents.classifier.detector import Detector, DetectorConfig, Evidence, decide
from alignpre_jax.documents.classifier.labelled import Labelled
from alignpre_jax.documents.classifier.model import Classifier
from alignpre_jax.documents.discourse import Rule
from alignpre_jax.foundation import UserError, digest, to_mapping

_Z = 1.959963984540054  # the normal quantile of a two-sided 95% interval
_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

DETECTORS: Mapping[str, DetectorConfig] = {
    "terms": DetectorConfig("terms"),
    "two terms": DetectorConfig("terms", rule=Rule(terms=2)),
    "mention": DetectorConfig("terms", rule=Rule(negatives=0)),
    "classifier": DetectorConfig("classifier"),
    "multi-stage": DetectorConfig("terms+classifier"),
    "multi-stage, two terms": DetectorConfig("terms+classifier", escalate=Rule(negatives=0, terms=2)),
}

PUBLISHED = (
    {
        "work": "Tice et al. 2026, arXiv 2601.10160",
        "detector": "terms, tuned on the same documents",
        "labels": "529 documents, 230 of them positive",
        "recall": 1.0,
        "precision": None,
    },
    {
        "work": "O'Brien et al. 2025, Deep Ignorance",
        "detector": "terms alone (another topic: dual-use biology)",
        "labels": "their own",
        "recall": 0.980,
        "precision": 0.583,
    },
)


@dataclasses.dataclass(frozen=True)
class Counts:
    """`Counts` says how a detector's flags agree with the labels."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @property
    def precision(self) -> tuple[float, float, float] | None:
        """The share of the flagged documents that is AI discourse, with its 95% interval; None if none is flagged."""
        return wilson(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> tuple[float, float, float] | None:
        """The share of the AI discourse that is flagged, with its 95% interval; None if no document is AI discourse."""
        return wilson(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> tuple[float, float, float] | None:
        """The harmonic mean of precision and recall, with its 95% interval.

        F1 = 2J / (1 + J), where J = TP / (TP + FP + FN) is a proportion, so its interval is the interval of J,
        transformed.
        """
        union = self.true_positive + self.false_positive + self.false_negative
        shares = wilson(self.true_positive, union)
        return shares and (_f1(shares[0]), _f1(shares[1]), _f1(shares[2]))

    def to_json(self) -> dict[str, Any]:
        """Returns the counts, and each share as {"value", "ci95"}."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return dataclasses.asdict(self) | {
            name: share and {"value": round(share[0], 4), "ci95": [round(share[1], 4), round(share[2], 4)]}
            for name, share in shares.items()
        }


def wilson(successes: int, trials: int) -> tuple[float, float, float] | None:
    """Returns a share and its 95% score interval (Wilson 1927, for p given the observed share); None without trials."""
    if not trials:
        return None
    share, z2 = successes / trials, _Z * _Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    low = 0.0 if successes == 0 else centre - half
    return share, low, 1.0 if successes == trials else centre + half


def count(flags: Iterable[bool], labels: Iterable[bool]) -> Counts:
    """Compares flags with labels, one by one."""
    table = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for flag, label in zip(flags, labels, strict=True):
        table[bool(flag), label] += 1
    return Counts(table[True, True], table[True, False], table[False, True], table[False, False])


def make_card(
    labelled: Sequence[Labelled],
    detectors: Mapping[str, DetectorConfig] = DETECTORS,
    classifier: Classifier | None = None,
) -> dict[str, Any]:
    """Scores detectors on labelled documents.

    All the given documents are scored, so pass only the split "test" if the classifier was trained on the split
    "train". Each document is read once; all detectors with the same classifier and chunks decide from the same
    evidence.

    Args:
      labelled: the documents, at least one.
      detectors: the detectors, by the names that the card gives them.
      classifier: is asked in place of the classifiers that the detectors name.

    Returns:
      JSON-ready values: "documents" (how many, of which kinds, and a digest of all), "detectors" (by name: the config,
      overall counts and shares, the same by kind, by language and by stance, and the ids of the missed documents and
      the false alarms), and "thresholds" (for detectors with a classifier: counts and shares at nine thresholds).

    Raises:
      UserError: there is no labelled document.
    """
    if not labelled:
        raise UserError("no labelled document to score on", where="labelled", fix='give documents of the split "test"')
    labels = [row.is_ai for row in labelled]
    gathered: dict[tuple[str, int, int], list[Evidence]] = {}
    scored: dict[str, Any] = {}
    thresholds: dict[str, Any] = {}
    for name, config in detectors.items():
        evidence = _gather(labelled, config, gathered, classifier)
        flags = [decide(item, config) for item in evidence]
        scored[name] = {
            "config": to_mapping(config),
            "all": count(flags, labels).to_json(),
            "by_kind": _broken_down(labelled, flags, lambda row: row.kind),
            "by_language": _broken_down(labelled, flags, lambda row: row.language),
            "recall_by_stance": _broken_down(
                [row for row in labelled if row.is_ai],
                [flag for flag, label in zip(flags, labels, strict=True) if label],
                lambda row: row.stance,
            ),
            "missed": [row.id for row, flag in zip(labelled, flags, strict=True) if row.is_ai and not flag],
            "false_alarms": [row.id for row, flag in zip(labelled, flags, strict=True) if flag and not row.is_ai],
        }
        if config.kind != "terms":
            thresholds[name] = {
                str(threshold): count(
                    [decide(item, dataclasses.replace(config, threshold=threshold)) for item in evidence], labels
                ).to_json()
                for threshold in _THRESHOLDS
            }
    return {
        "documents": {
            "number": len(labelled),
            "positive": sum(labels),
            "kinds": _tally(row.kind for row in labelled),
            "languages": _tally(row.language for row in labelled),
            "digest": digest([dataclasses.asdict(row) for row in labelled]),
        },
        "detectors": scored,
        "thresholds": thresholds,
    }


def render_card(card: Mapping[str, Any], title: str = "Detector card", notes: str = "") -> str:
    """Renders the card as a Markdown page."""
    documents = card["documents"]
    lines = [f"# {title}", ""]
    lines += [f"{documents['number']} labelled documents, {documents['positive']} of them AI discourse "]
    lines[-1] += f"(digest `{documents['digest']}`). Brackets are 95% Wilson intervals."
    lines += ["", notes, ""] if notes else [""]
    header = ("detector", "precision", "recall", "F1", "flagged", "missed", "false alarms")
    lines += _table(header, [(name, *_shares(row["all"])) for name, row in card["detectors"].items()])
    for key, label in (("by_kind", "kind"), ("by_language", "language")):
        lines += ["", f"## By {label}", "", "Recall on AI discourse; share of the rest that is flagged by mistake.", ""]
        names = list(next(iter(card["detectors"].values()))[key])
        rows = [(name, *(_both(row[key][name]) for row in card["detectors"].values())) for name in names]
        lines += _table((label, *card["detectors"]), rows)
    for name, rows in card["thresholds"].items():
        lines += ["", f"## Thresholds: {name}", ""]
        header = ("threshold", "precision", "recall", "F1", "flagged", "missed", "false alarms")
        lines += _table(header, [(threshold, *_shares(row)) for threshold, row in rows.items()])
    lines += ["", "## Which documents"]
    for name, row in card["detectors"].items():
        lines += ["", f"**{name}** missed {_some(row['missed'])}; false alarms {_some(row['false_alarms'])}."]
    return "\n".join(lines) + "\n"


def _gather(
    labelled: Sequence[Labelled],
    config: DetectorConfig,
    gathered: dict[tuple[str, int, int], list[Evidence]],
    classifier: Classifier | None,
) -> list[Evidence]:
    """Returns the evidence about every document, complete for `config`.

    The documents are read again only for another classifier or other chunks.
    """
    if config.kind == "terms" and gathered:
        return next(iter(gathered.values()))  # every entry has the hits, which is all that terms need
    key = (config.classifier if config.kind != "terms" else "", config.chunk_words, config.overlap_words)
    if key not in gathered:
        detector = Detector(config, classifier)
        gathered[key] = [detector.evidence(row.text, in_full=True) for row in labelled]
    return gathered[key]


def _broken_down(
    labelled: Sequence[Labelled], flags: Sequence[bool], group: Callable[[Labelled], str]
) -> dict[str, Any]:
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for row, flag in zip(labelled, flags, strict=True):
        rows.setdefault(group(row), []).append((flag, row.is_ai))
    return {name: count(*zip(*rows[name], strict=True)).to_json() for name in sorted(rows)}


def _tally(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _shares(row: Mapping[str, Any]) -> tuple[str, ...]:
    flagged = row["true_positive"] + row["false_positive"]
    shares = [_percent(row[name]) for name in ("precision", "recall", "f1")]
    return (*shares, str(flagged), str(row["false_negative"]), str(row["false_positive"]))


def _both(row: Mapping[str, Any]) -> str:
    """Writes recall and false alarms of one group: "14/16 found, 2/9 mistaken"."""
    positive, negative = row["true_positive"] + row["false_negative"], row["false_positive"] + row["true_negative"]
    found = [f"{row['true_positive']}/{positive} found"] if positive else []
    return ", ".join(found + ([f"{row['false_positive']}/{negative} mistaken"] if negative else []))


def _some(ids: Sequence[str], shown: int = 12) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return (", ".join(ids[:shown]) or "none") + more


def _percent(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "-"
    low, high = share["ci95"]
    return f"{share['value']:.1%} [{low:.1%}, {high:.1%}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
