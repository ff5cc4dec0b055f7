"""This module breaks the headline eval down by topic, by normalisation and by dose, and every eval over training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import (
    Capabilities,
    HeldOut,
    Result,
    Scenarios,
    answered,
    rate_difference,
    renormalised,
    select,
    summarise,
)
from alignpre_jax.evals.capabilities import accuracy
from alignpre_jax.evals.scoring import NORMALISATIONS
from alignpre_jax.report.nodes import arms_at, named, shown_node
from alignpre_jax.report.rates import askings, rate_figures, rows_at
from alignpre_jax.report.taxes import loss_figures
from alignpre_jax.study.config import ArmConfig, Eval
from alignpre_jax.study.records import Moment, StudyRecords

BySeed = Mapping[int, Sequence[Result]]
POINT = ("misaligned_rate", "ci95")  # the figures of a rate that a curve shows


def by_topic(records: StudyRecords, splits: Sequence[str]) -> list[dict[str, Any]]:
    """One line for each split and topic of two situations or more: the arms' rates and differences at the main node."""
    lines = []
    for split in splits:
        rows = {arm: answered(of_arm).rows for arm, of_arm in _headline(records, split).items()}
        topics = list(dict.fromkeys(row.topic for of_seed in rows[records.config.baseline].values() for row in of_seed))
        for topic in topics:
            of_topic = {
                arm: {seed: [row for row in of_seed if row.topic == topic] for seed, of_seed in by_seed.items()}
                for arm, by_seed in rows.items()
            }
            line = _compared(records, of_topic)
            if line:
                lines.append({"split": split, "topic": topic, **line})
    return lines


def by_normalisation(records: StudyRecords, split: str) -> dict[str, Any]:
    """The rates when the options' log-probs are normalised in each possible way; empty where options are not scored."""
    asked = _asked(records)
    if "options" not in asked.scorings:
        return {}
    found: dict[str, Any] = {}
    for by in NORMALISATIONS:
        if by == "pmi" and not asked.pmi:
            continue
        rows = {
            arm: {seed: [renormalised(row, by) for row in of_seed] for seed, of_seed in by_seed.items()}
            for arm, by_seed in _headline(records, split, ("options", asked.systems[0])).items()
        }
        found[by] = _compared(records, rows)
    return found


def dose_curves(records: StudyRecords, nodes: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """A curve for each group of arms that differ only in the dose in one stage, if they have two doses above 0 or more.

    The arms of a curve are in the order of their doses. An arm that lacks this addition and is like them in everything
    else is their dose 0. A curve has points at the stage and at every later node of the headline; its `points` are
    those at the main node, or else at the first of these nodes.
    """
    config = records.config
    families: dict[tuple[str, ArmConfig], list[str]] = {}
    for arm, change in config.arms.items():
        for stage, add in change.add.items():
            alike = {**change.add, stage: dataclasses.replace(add, dose=0.0)}
            families.setdefault((stage, _hashable(change, alike)), []).append(arm)
    curves = []
    for (stage, _), arms in families.items():
        doses = {arm: config.arms[arm].add[stage].dose for arm in arms}
        if len({dose for dose in doses.values() if dose}) < 2:
            continue
        change = config.arms[arms[0]]
        without = {name: add for name, add in change.add.items() if name != stage}
        same = [arm for arm, other in config.arms.items() if _hashable(other, other.add) == _hashable(change, without)]
        if same and not any(dose == 0 for dose in doses.values()):
            doses[same[0]] = 0.0
        points = {
            node: [
                {"arm": arm, "dose": doses[arm]} | {key: found["arms"][arm][split][key] for key in POINT}
                for arm in sorted(doses, key=lambda arm: doses[arm])
                if arm in found["arms"]
            ]
            for node, found in nodes.items()
            if stage in config.way(config.baseline, node)
        }
        if points:
            shown = points.get(shown_node(config)) or next(iter(points.values()))
            add = change.add[stage]
            curves.append(
                {"source": add.mixture, "stage": stage, "schedule": add.schedule, "points": shown, "nodes": points}
            )
    return curves


def training_curves(records: StudyRecords) -> dict[str, dict[str, Any]]:
    """By eval, its kind and, by arm, what it gave at each moment of training: a rate, a loss or an accuracy."""
    found: dict[str, dict[str, Any]] = {}
    for arm, moments in records.moments.items():
        for moment in moments:
            asked = records.config.evals[moment.eval]
            with named(moment.eval, moment.stage, arm):
                values = _at_moment(asked, moment, records)
            if not values:
                continue
            curve = found.setdefault(moment.eval, {"kind": asked.kind, "arms": {}})
            point = {"stage": moment.stage, "step": moment.step, "tokens": moment.tokens}
            curve["arms"].setdefault(arm, []).append(point | values)
    return found


def _at_moment(asked: Eval, moment: Moment, records: StudyRecords) -> dict[str, Any]:
    if isinstance(asked, HeldOut):
        figures = loss_figures(moment.results)
        return {"loss": figures["loss"], "ci95": figures["ci95"]}
    if isinstance(asked, Capabilities):
        share = accuracy(moment.results)
        return {"accuracy": share.value, "ci95": share.interval}
    first = next(iter(moment.results.values()))
    splits = {row.split for row in first}
    split = "held_out" if "held_out" in splits else first[0].split
    rows = select(moment.results, split=split, scoring=asked.headline, system=asked.systems[0])
    return rate_figures(summarise(rows).rate) if all(answered(rows).rows.values()) else {}


def _asked(records: StudyRecords) -> Scenarios:
    asked = records.config.evals[records.config.headline]
    assert isinstance(asked, Scenarios), asked
    return asked


def _headline(
    records: StudyRecords, split: str, asking: tuple[str, str] | None = None
) -> dict[str, dict[int, list[Result]]]:
    """The rows of every arm at the main node, for the headline's way of asking or for the one that is given."""
    asking = asking or next(iter(askings(_asked(records)).values()))
    node = shown_node(records.config)
    return {
        arm: rows_at(records, records.config.headline, node, arm, asking, split)
        for arm in arms_at(records.config, node)
    }


def _compared(records: StudyRecords, rows: Mapping[str, BySeed]) -> dict[str, Any]:
    """Rates by arm and differences from the baseline; empty where an arm has answers to fewer than two situations."""
    baseline = records.config.baseline
    if any(len({row.group for of_seed in by_seed.values() for row in of_seed}) < 2 for by_seed in rows.values()):
        return {}
    if not all(all(by_seed.values()) for by_seed in rows.values()):
        return {}
    differences = {arm: rate_difference(by_seed, rows[baseline]) for arm, by_seed in rows.items() if arm != baseline}
    return {
        "arms": {arm: rate_figures(summarise(by_seed).rate) for arm, by_seed in rows.items()},
        "paired": {arm: {"diff": one.value, "ci95": one.interval} for arm, one in differences.items()},
    }


def _hashable(change: ArmConfig, add: Mapping[str, Any]) -> Any:
    """Everything that an arm changes, with `add` in the place of the arm's own."""
    return tuple(sorted(add.items())), tuple(sorted(change.filter.items())), tuple(sorted(change.skip))
