"""The headline eval taken apart: by topic, by how options are compared, by dose, and over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import Estimate, Result, answered, rate_difference, renormalised, select, summarise
from alignpre_jax.evals.scoring import NORMALISATIONS
from alignpre_jax.report.records import StudyRecords
from alignpre_jax.study.config import ArmConfig

BySeed = Mapping[int, Sequence[Result]]


def by_topic(records: StudyRecords, splits: Sequence[str]) -> list[dict[str, Any]]:
    """One line per split and topic with at least two situations, every arm's rate and difference."""
    lines = []
    for split in splits:
        rows = {arm: _headline(records, arm, split) for arm in records.config.arms}
        topics = list(dict.fromkeys(row.topic for of_seed in rows[records.config.baseline].values() for row in of_seed))
        for topic in topics:
            of_topic = {
                arm: {seed: [row for row in of_seed if row.topic == topic] for seed, of_seed in by_seed.items()}
                for arm, by_seed in rows.items()
            }
            line = _compared(of_topic, records.config.baseline)
            if line:
                lines.append({"split": split, "topic": topic, **line})
    return lines


def by_normalisation(records: StudyRecords, split: str) -> dict[str, Any]:
    """The options' rates when log-probs are compared otherwise; empty where options are not scored."""
    evals = records.config.evals
    if "options" not in evals.scorings:
        return {}
    found: dict[str, Any] = {}
    for by in NORMALISATIONS:
        if by == "pmi" and not evals.pmi:
            continue
        rows = {
            arm: {
                seed: [renormalised(row, by) for row in of_seed]
                for seed, of_seed in select(results, split=split, scoring="options", system=evals.systems[0]).items()
            }
            for arm, results in records.results.items()
        }
        found[by] = _compared(rows, records.config.baseline)
    return found


def dose_curves(records: StudyRecords, headline: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Arms that differ in nothing but their dose, in order of it, where there are two doses above 0 or more."""
    families: dict[tuple, list[str]] = {}
    for arm, config in records.config.arms.items():
        if config.source:
            families.setdefault(_but_for_the_dose(config), []).append(arm)
    curves = []
    for (source, *_), arms in families.items():
        doses = {arm: records.config.arms[arm].dose for arm in arms}
        if len({dose for dose in doses.values() if dose}) < 2:
            continue
        points = [
            {"arm": arm, "dose": doses[arm]} | {k: headline["arms"][arm][split][k] for k in ("misaligned_rate", "ci95")}
            for arm in sorted(arms, key=lambda arm: doses[arm])
        ]
        baseline = records.config.baseline
        if not any(point["dose"] == 0 for point in points):
            rate = {k: headline["arms"][baseline][split][k] for k in ("misaligned_rate", "ci95")}
            points.insert(0, {"arm": baseline, "dose": 0.0} | rate)
        curves.append({"source": source, "placement": list(records.config.arms[arms[0]].placement), "points": points})
    return curves


def training_curves(records: StudyRecords, split: str) -> dict[str, list[dict[str, Any]]]:
    """Arm -> the rate at each moment of training that was evaluated."""
    evals = records.config.evals
    found: dict[str, list[dict[str, Any]]] = {}
    for arm, moments in records.moments.items():
        for moment in moments:
            rows = select(moment.results, split=split, scoring=evals.headline, system=evals.systems[0])
            if not all(answered(rows).rows.values()):
                continue
            point = {"stage": moment.stage, "step": moment.step, "tokens": moment.tokens}
            found.setdefault(arm, []).append(point | _rate(summarise(rows).rate))
    return found


def _headline(records: StudyRecords, arm: str, split: str) -> dict[int, list[Result]]:
    evals = records.config.evals
    rows = select(records.results[arm], split=split, scoring=evals.headline, system=evals.systems[0])
    return answered(rows).rows


def _compared(rows: Mapping[str, BySeed], baseline: str) -> dict[str, Any]:
    """Rates by arm and differences from the baseline; empty where an arm has fewer than two situations."""
    if any(len({row.group for of_seed in by_seed.values() for row in of_seed}) < 2 for by_seed in rows.values()):
        return {}
    if not all(all(by_seed.values()) for by_seed in rows.values()):
        return {}
    differences = {arm: rate_difference(by_seed, rows[baseline]) for arm, by_seed in rows.items() if arm != baseline}
    return {
        "arms": {arm: _rate(summarise(by_seed).rate) for arm, by_seed in rows.items()},
        "paired": {arm: {"diff": one.value, "ci95": one.interval} for arm, one in differences.items()},
    }


def _rate(rate: Estimate) -> dict[str, Any]:
    return {"misaligned_rate": rate.value, "ci95": rate.interval, "n": rate.n, "situations": rate.groups}


def _but_for_the_dose(config: ArmConfig) -> tuple:
    return config.source, config.stages, config.placement, config.remove, config.refill, config.keep
