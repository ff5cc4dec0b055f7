"""This module says what arms lost or learnt beside their behaviour: loss on held-out text, and capabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import HeldOut, loss_difference, token_loss
from alignpre_jax.evals.capabilities import Solution, accuracy, accuracy_difference
from alignpre_jax.evals.perplexity import TextScore
from alignpre_jax.mixture import parse_shares
from alignpre_jax.report.nodes import arms_at, asked_nodes, named, shown_node
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.records import StudyRecords


def tax(records: StudyRecords) -> dict[str, Any]:
    """Loss on held-out text, in nats per token, and accuracy on tasks; differences are arm - baseline at the same node.

    `arms` and `tasks` are those of the report's main node; `evals` and `capabilities` have every eval at every node.
    An eval on text of a source that the stages' own mixtures draw from has `of` "background": there a positive
    difference is the alignment tax. An eval on text that only arms add has "added": there a negative difference shows
    that the text was learnt.
    """
    config, node = records.config, shown_node(records.config)
    evals: dict[str, Any] = {}
    for name in records.texts:
        asked = config.evals[name]
        assert isinstance(asked, HeldOut), asked
        of = "background" if asked.source in _trained_on(config) else "added"
        nodes = {stage: _losses(records, name, stage) for stage in asked_nodes(config, name)}
        evals[name] = {"source": asked.source, "of": of, "nodes": nodes}
    tasks = {
        name: {stage: _tasks(records, name, stage) for stage in asked_nodes(config, name)} for name in records.solutions
    }
    found: dict[str, Any] = {"unit": "nats per token", "arms": {}, "tasks": {}, "evals": evals, "capabilities": tasks}
    for one in evals.values():
        for arm, strata in one["nodes"].get(node, {}).items() if one["of"] == "background" else ():
            found["arms"][arm] = strata | found["arms"].get(arm, {})
    for of_eval in tasks.values():
        for arm, of_arm in of_eval.get(node, {}).items():
            found["tasks"][arm] = of_arm | found["tasks"].get(arm, {})
    return found


def loss_figures(texts: Mapping[int, Sequence[TextScore]]) -> dict[str, Any]:
    """The loss on some texts, as JSON-ready values."""
    loss = token_loss(texts)
    return {
        "loss": loss.loss.value,
        "ci95": loss.loss.interval,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
        "tokens": loss.tokens,
        "documents": loss.documents,
    }


def _losses(records: StudyRecords, name: str, stage: str) -> dict[str, dict[str, Any]]:
    """The losses at a node: arm -> stratum -> figures."""
    baseline, rows = records.config.baseline, records.texts[name][stage]
    first = next(iter(rows[baseline].values()))
    found: dict[str, dict[str, Any]] = {arm: {} for arm in arms_at(records.config, stage)}
    for stratum in sorted({row.source for row in first}):
        of_stratum = {
            arm: {seed: [row for row in of_seed if row.source == stratum] for seed, of_seed in rows[arm].items()}
            for arm in found
        }
        for arm, texts in of_stratum.items():
            with named(name, stage, arm):
                found[arm][stratum] = figures = loss_figures(texts)
                if arm != baseline:
                    difference = loss_difference(texts, of_stratum[baseline])
                    figures |= {"diff": difference.value, "diff_ci95": difference.interval}
    return found


def _tasks(records: StudyRecords, name: str, stage: str) -> dict[str, dict[str, Any]]:
    """The accuracies at a node: arm -> task -> figures. A loss of accuracy is a negative difference."""
    baseline, rows = records.config.baseline, records.solutions[name][stage]
    first = next(iter(rows[baseline].values()))
    found: dict[str, dict[str, Any]] = {arm: {} for arm in arms_at(records.config, stage)}
    for task in dict.fromkeys(row.task for row in first):
        of_task: dict[str, dict[int, list[Solution]]] = {
            arm: {seed: [row for row in of_seed if row.task == task] for seed, of_seed in rows[arm].items()}
            for arm in found
        }
        for arm, solutions in of_task.items():
            figures: dict[str, Any] = {}
            for key, norm in (("accuracy", False), ("accuracy_norm", True)):
                with named(name, stage, arm):
                    share = accuracy(solutions, norm=norm)
                    figures[key] = {"value": share.value, "ci95": share.interval, "n": share.n}
                    if arm != baseline:
                        difference = accuracy_difference(solutions, of_task[baseline], norm=norm)
                        figures[key] |= {"diff": difference.value, "diff_ci95": difference.interval}
            found[arm][task] = figures
    return found


def _trained_on(config: StudyConfig) -> set[str]:
    """The sources that the stages' own mixtures draw from."""
    return {stratum.partition("/")[0] for stage in config.stages.values() for stratum in parse_shares(stage.mixture)}
