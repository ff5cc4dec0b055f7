"""This module measures how much of the eval items stands in the text that each arm is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from alignpre_jax.documents import Document
from alignpre_jax.documents.overlap import measure_overlap
from alignpre_jax.evals import Scenario, Scenarios, load_suite
from alignpre_jax.foundation import Report
from alignpre_jax.mixture import Ledger
from alignpre_jax.study.workspace import Workspace, read_documents


def overlap_path(space: Workspace) -> epath.Path:
    """The file of the measured overlap. Like the ledger it is the study's own, even where the data is another's."""
    return space.root / "data" / "overlap.json"


def measure(space: Workspace, ledgers: Mapping[str, Ledger], report: Report) -> list[dict[str, Any]]:
    """Measures the overlap of every stratum, then of every arm ("arm NAME"), with every split of the suites.

    The splits of the headline's suite are called by their names, the splits of other suites SUITE:SPLIT.

    Args:
      space: the study's folder, in which the documents have been prepared.
      ledgers: the ledgers by the names of the training runs; strata without a row in a run of the first seed are not
        measured.
      report: is told the number of documents that have been read, now and then.

    Returns:
      `Overlap.to_json()` of each.
    """
    config, tree = space.config, space.tree
    splits: dict[str, dict[str, str]] = {}
    headline = config.evals[config.headline]
    assert isinstance(headline, Scenarios)
    suites = [headline.suite, *(each.suite for each in config.evals.values() if isinstance(each, Scenarios))]
    for suite in dict.fromkeys(suites):
        for scenario in load_suite(suite, config.data.world):
            split = scenario.split if suite == headline.suite else f"{suite}:{scenario.split}"
            splits.setdefault(split, {})[scenario.id] = item_text(scenario)
    arms: dict[str, list[str]] = {}
    for arm in config.arms:
        runs = [tree.run(arm, config.seeds[0], stage) for stage in config.stages_of(arm)]
        strata = [line.store for run in runs for line in ledgers[run.name].stores if line.slots]
        arms[f"arm {arm}"] = list(dict.fromkeys(strata))
    used = [stratum for stratum in config.data.strata() if any(stratum in strata for strata in arms.values())]
    documents = {stratum: _documents_of(space, stratum) for stratum in used}
    return [found.to_json() for found in measure_overlap(documents, splits, unions=arms, report=report)]


def item_text(scenario: Scenario) -> str:
    """The text of a scenario that is looked for in documents: the question and both options."""
    return "\n".join((scenario.question, *scenario.options))


def _documents_of(space: Workspace, stratum: str) -> Iterator[Document]:
    source, _, _ = stratum.partition("/")
    return (document for document in read_documents(space.documents(source)) if document.stratum == stratum)
