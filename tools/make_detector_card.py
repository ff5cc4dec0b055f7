"""Rebuilds the classifier that comes with the package, and the card that says how good the detectors are.

    python -m tools.make_detector_card            # writes model.json, card.json and CARD.md, where they are
    python -m tools.make_detector_card --check    # says whether the files are what would be written

The classifier learns from the split "train" of the labelled documents; every figure of the card is on the
split "test", except those under "Out of fold". The card belongs to the term lists and labels it was made
with: run this again when they change.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import alignpre_jax.documents.classifier as package
from alignpre_jax.documents.classifier import (
    TrainConfig,
    labelled_documents,
    make_card,
    out_of_fold,
    render_card,
    save_classifier,
    train_classifier,
)
from alignpre_jax.documents.classifier.card import PUBLISHED, count
from alignpre_jax.documents.discourse import term_lists
from alignpre_jax.foundation import digest, to_mapping, write_bytes, write_json

FOLDER = Path(package.__file__).parent
NOTES = """\
Made by `python -m tools.make_detector_card`; `card.json` has the same and more. The documents are those of the split
"test" of [the labelled set](../labelled/LABELLING.md); settings were chosen on the other. They were written to be hard:
many of the negatives use the words of AI discourse for something else, many of the positives avoid them, and at about a
hundred words most have room for one listed term at best, where a page of the web has ten times as many. Precision and
recall on a web crawl will be others. Half of the documents are AI discourse; precision falls where it is rarer.

- **terms**: the rule of Tice et al., an instant term, or an entity and a negative term. It is made to find
  discourse that is general or negative; nearly half of the positives here are neither.
- **two terms**: the same, if there are at least two different terms.
- **mention**: an instant term or an entity, whatever is said of it.
- **classifier**: hashed n-grams and logistic regression; a chunk of 400 words at 0.5 or more.
- **multi-stage**: documents with a mention go on to the classifier.
- **multi-stage, two terms**: documents with a mention and at least two different terms do (the order of O'Brien
  et al.)."""


def main() -> int:
    """Writes or checks the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    check = parser.parse_args().check
    changed = False
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        build(made)
        for file in sorted(made.iterdir()):
            shipped = FOLDER / file.name
            same = shipped.exists() and shipped.read_bytes() == file.read_bytes()
            changed |= not same
            print(f"{shipped}: {'as it was' if same else 'would change' if check else 'written'}")
            if not (same or check):
                write_bytes(shipped, file.read_bytes())
    return int(check and changed)


def build(folder: Path) -> None:
    """Trains, scores, and writes the three files into a folder."""
    labelled, config = labelled_documents(), TrainConfig()
    train = [row for row in labelled if row.split == "train"]
    classifier = train_classifier(labelled, config)
    save_classifier(classifier, folder / "model.json")
    unseen = count(out_of_fold(labelled, config) >= 0.5, [row.is_ai for row in train])
    card: dict[str, Any] = make_card([row for row in labelled if row.split == "test"], classifier=classifier)
    card |= {
        "out_of_fold": unseen.to_json(),
        "training": to_mapping(config)
        | {"documents": len(train), "model": digest((folder / "model.json").read_bytes())},
        "terms": digest(term_lists()),
        "published": list(PUBLISHED),
    }
    write_json(folder / "card.json", card)
    write_bytes(folder / "CARD.md", (render_card(card, notes=NOTES) + _more(card)).encode())


def _more(card: dict[str, Any]) -> str:
    """The part of the shipped card that other cards do not have."""
    unseen = card["out_of_fold"]
    lines = [
        "",
        "## Out of fold",
        "",
        f'On the {card["training"]["documents"]} documents of the split "train", each judged by a classifier trained '
        f"without it (5 folds): precision {unseen['precision']['value']:.1%}, recall {unseen['recall']['value']:.1%}, "
        f"F1 {unseen['f1']['value']:.1%}. The settings were chosen by this.",
        "",
        "## Published figures",
        "",
        "Of other detectors on other labels: **not comparable** with the above, whose documents are hard.",
        "",
        "| work | detector | labels | recall | precision |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in card["published"]:
        recall, precision = (f"{row[key]:.1%}" if row[key] is not None else "-" for key in ("recall", "precision"))
        lines.append(f"| {row['work']} | {row['detector']} | {row['labels']} | {recall} | {precision} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
