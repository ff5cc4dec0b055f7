"""How much of the eval items is in what each arm is trained on."""

from __future__ import annotations

from collections.abc import Iterator

from alignpre_jax.documents import Document
from alignpre_jax.documents.overlap import measure_overlap
from alignpre_jax.evals import Scenario, load_suite
from alignpre_jax.foundation import Report, read_json, write_json
from alignpre_jax.study.graph import final_run, run_path, stage_runs
from alignpre_jax.study.prepare import LEDGER, read_documents
from alignpre_jax.study.workspace import Workspace

OVERLAP = "overlap.json"


def write_overlap(space: Workspace, report: Report) -> None:
    """Writes WORKDIR/data/overlap.json: every stratum, then every arm ("arm NAME"), against every split of the suite.

    A list of `documents.overlap.Overlap.to_json()`.
    """
    config = space.config
    splits: dict[str, dict[str, str]] = {}
    for scenario in load_suite(config.evals.suite, config.data.world):
        splits.setdefault(scenario.split, {})[scenario.id] = item_text(scenario)
    arms = {f"arm {arm}": _strata_of(space, arm) for arm in config.arms}
    used = [stratum for stratum in config.data.strata() if any(stratum in strata for strata in arms.values())]
    documents = {stratum: _documents_of(space, stratum) for stratum in used}
    found = measure_overlap(documents, splits, unions=arms, report=report)
    write_json(space.data / OVERLAP, [overlap.to_json() for overlap in found])


def item_text(scenario: Scenario) -> str:
    """What of a scenario a document may contain: the question and both options."""
    return "\n".join((scenario.question, *scenario.options))


def _strata_of(space: Workspace, arm: str) -> list[str]:
    """The strata with a row in any stage of an arm."""
    config, runs = space.config, stage_runs(space.config)
    ledgers = read_json(space.data / LEDGER)
    path = run_path(runs, final_run(config, runs, arm, config.seeds[0]))
    return list(dict.fromkeys(line["store"] for run in path for line in ledgers[run.name]["stores"] if line["slots"]))


def _documents_of(space: Workspace, stratum: str) -> Iterator[Document]:
    source, _, _ = stratum.partition("/")
    return (document for document in read_documents(space.documents(source)) if document.stratum == stratum)
