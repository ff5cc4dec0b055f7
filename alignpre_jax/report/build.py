"""A study's report: every number from the records, as one JSON-ready mapping that all pages are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from alignpre_jax.evals import (
    Estimate,
    Floor,
    Summary,
    answered,
    floor_check,
    holm,
    loss_difference,
    rate_difference,
    select,
    summarise,
    token_loss,
)
from alignpre_jax.evals.capabilities import accuracy, accuracy_difference
from alignpre_jax.foundation import PathLike, to_mapping, write_bytes, write_json
from alignpre_jax.report.breakdown import by_normalisation, by_topic, dose_curves, training_curves
from alignpre_jax.report.browser import browser_data
from alignpre_jax.report.items import telling_items
from alignpre_jax.report.page import render_page
from alignpre_jax.report.records import StudyRecords
from alignpre_jax.report.tables import csv_table, markdown
from alignpre_jax.report.words import finding, floor_notices, methods

SPLITS = ("held_out", "seen", "control")  # as they are shown; other splits follow

Arms = dict[str, dict[str, Any]]  # arm -> split -> figures


def write_report(records: StudyRecords, root: PathLike) -> dict[str, Any]:
    """Writes report.json, .html, .csv and .md into a folder; returns what is in the first."""
    report = build_report(records)
    write_json(epath.Path(root) / "report.json", report)
    write_bytes(epath.Path(root) / "report.html", render_page(report).encode())
    write_bytes(epath.Path(root) / "report.csv", csv_table(report).encode())
    write_bytes(epath.Path(root) / "report.md", markdown(report).encode())
    return report


def build_report(records: StudyRecords) -> dict[str, Any]:
    """The report as JSON-ready values.

    `arms`, `paired` and `floor` hold the headline eval (one scoring, the first system prompt); `scorings` holds every
    eval in the same shape under its name. Rates are shares of 1, differences are arm - baseline, intervals are 95%.
    """
    config = records.config
    splits = _splits(records)
    primary = splits[0]
    asked = {
        _name(scoring, system, config.evals.systems): (scoring, system)
        for scoring in (config.evals.headline, *(s for s in config.evals.scorings if s != config.evals.headline))
        for system in config.evals.systems
    }
    headline_name = next(iter(asked))
    dropped = {name: why for name, about in asked.items() if (why := _unanswered(records, *about, splits))}
    dropped.pop(headline_name, None)  # without answers to the headline there is no report
    evals = {name: _evaluate(records, *about, splits) for name, about in asked.items() if name not in dropped}
    headline = evals[headline_name]
    return {
        "name": config.name,
        "baseline": config.baseline,
        "headline": headline_name,
        "primary_split": primary,
        "splits": splits,
        "seeds": list(config.seeds),
        "findings": [
            finding(
                arm,
                config.baseline,
                primary,
                headline["arms"][arm][primary],
                headline["arms"][config.baseline][primary],
                headline["paired"][arm][primary],
            )
            for arm in config.arms
            if arm != config.baseline
        ],
        "notices": [
            *(n for name, found in evals.items() for n in floor_notices(name, found["floor"], list(config.arms))),
            *(
                {"eval": name, "splits": splits, "at_floor": True, "arms": list(config.arms), "text": why}
                for name, why in dropped.items()
            ),
        ],
        "arms": headline["arms"],
        "paired": headline["paired"],
        "scorings": evals,
        "topics": by_topic(records, splits),
        "normalisations": by_normalisation(records, primary),
        "doses": dose_curves(records, headline, primary),
        "training": training_curves(records, primary),
        "tax": _tax(records),
        "overlap": [dict(one) for one in records.overlap],
        "ledger": {
            arm: {stage: ledger.to_json() for stage, ledger in stages.items()}
            for arm, stages in records.ledgers.items()
        },
        "throughput": _throughput(records),
        "items": telling_items(records, primary),
        "browser": browser_data(records, {name: about for name, about in asked.items() if name in evals}),
        "methods": methods(records, splits),
        "reproduce": records.reproduce,
        "config": to_mapping(config),
        "versions": dict(records.versions),
    }


def _evaluate(records: StudyRecords, scoring: str, system: str, splits: Sequence[str]) -> dict[str, Any]:
    """One eval of all arms: rates, paired differences and floors, by split."""
    baseline = records.config.baseline
    arms: Arms = {arm: {} for arm in records.config.arms}
    paired: Arms = {arm: {} for arm in records.config.arms if arm != baseline}
    floors: dict[str, Any] = {}
    for split in splits:
        rows = {arm: select(records.results[arm], split=split, scoring=scoring, system=system) for arm in arms}
        summaries = {arm: summarise(of_arm) for arm, of_arm in rows.items()}
        differences = {arm: rate_difference(rows[arm], rows[baseline]) for arm in paired}
        for arm, summary in summaries.items():
            arms[arm][split] = _rate(summary)
        for arm, difference in differences.items():
            paired[arm][split] = {"diff": difference.value, "ci95": difference.interval, "p": difference.p}
        for arm, p in holm({arm: difference.p or 0.0 for arm, difference in differences.items()}).items():
            paired[arm][split]["p_holm"] = p
        floors[split] = _floor(floor_check(summaries, differences))
    return {"scoring": scoring, "system": system, "arms": arms, "paired": paired, "floor": floors}


def _rate(summary: Summary) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "misaligned_rate": summary.rate.value,
        "ci95": summary.rate.interval,
        "n": summary.rate.n,
        "situations": summary.rate.groups,
        "seeds": summary.rate.seeds,
        "seed_rates": {str(seed): rate for seed, rate in summary.seed_rates.items()},
        "margin": _value(summary.margin),
    }
    if summary.first_chosen and summary.flips:
        figures |= {"first_chosen": _value(summary.first_chosen), "flip_rate": _value(summary.flips)}
    if summary.p_misaligned:
        figures |= {"mass": summary.mass, "p_misaligned": _value(summary.p_misaligned)}
    if summary.unmatched is not None:
        figures["unmatched"] = summary.unmatched
    return figures


def _unanswered(records: StudyRecords, scoring: str, system: str, splits: Sequence[str]) -> str:
    """Why an eval cannot be reported: an arm whose generated answers name too few options; "" where all do."""
    for arm, results in records.results.items():
        for split in splits:
            found = answered(select(results, split=split, scoring=scoring, system=system))
            if found.unmatched and not all(found.rows.values()):
                return f"is left out: {found.unmatched:.0%} of the answers of {arm} on {split} items name no option."
    return ""


def _floor(floor: Floor) -> dict[str, Any]:
    return {"at_floor": floor.at_floor, "reason": floor.reason, "arms": list(floor.arms)}


def _value(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci95": estimate.interval}


def _tax(records: StudyRecords) -> dict[str, Any]:
    """Loss on held-out background text, in nats per token, by arm and source."""
    baseline = records.config.baseline
    first = next((rows for of_arm in records.texts.values() for rows in of_arm.values()), ())
    sources = sorted({row.source for row in first})
    tax: dict[str, Any] = {"unit": "nats per token", "arms": {}}
    for arm in records.config.arms if sources else ():
        tax["arms"][arm] = {}
        for source in sources:
            texts, base = (
                {seed: [row for row in rows if row.source == source] for seed, rows in records.texts[name].items()}
                for name in (arm, baseline)
            )
            loss = token_loss(texts)
            figures = {
                "loss": loss.loss.value,
                "ci95": loss.loss.interval,
                "perplexity": loss.perplexity,
                "bits_per_byte": loss.bits_per_byte,
                "tokens": loss.tokens,
                "documents": loss.documents,
            }
            if arm != baseline:
                difference = loss_difference(texts, base)
                figures |= {"diff": difference.value, "diff_ci95": difference.interval}
            tax["arms"][arm][source] = figures
    return tax | {"tasks": _tasks(records)}


def _tasks(records: StudyRecords) -> dict[str, Any]:
    """Accuracy on capability tasks, by arm and task; differences are arm - baseline, so a loss is negative."""
    baseline = records.config.baseline
    found: dict[str, Any] = {}
    for arm, by_seed in records.solutions.items():
        for task in dict.fromkeys(row.task for rows in by_seed.values() for row in rows):
            mine, base = (
                {seed: [row for row in rows if row.task == task] for seed, rows in records.solutions[name].items()}
                for name in (arm, baseline)
            )
            figures: dict[str, Any] = {}
            for name, norm in (("accuracy", False), ("accuracy_norm", True)):
                share = accuracy(mine, norm=norm)
                figures[name] = {"value": share.value, "ci95": share.interval, "n": share.n}
                if arm != baseline:
                    difference = accuracy_difference(mine, base, norm=norm)
                    figures[name] |= {"diff": difference.value, "diff_ci95": difference.interval}
            found.setdefault(arm, {})[task] = figures
    return found


def _throughput(records: StudyRecords) -> dict[str, Any]:
    """Per stage: how many runs, their tokens, seconds and FLOPs (forward and backward, attention causal)."""
    stages: dict[str, dict[str, Any]] = {}
    for time in records.times:
        line = stages.setdefault(time.stage, {"runs": 0, "tokens": 0, "seconds": 0.0, "flops": 0.0})
        line["runs"] += 1
        line["tokens"] += time.tokens
        line["seconds"] += time.seconds
        line["flops"] += time.tokens * float(records.config.model.flops_per_token(_row_length(records, time.stage)))
    for line in stages.values():
        line["tokens_per_second"] = line["tokens"] / line["seconds"] if line["seconds"] else 0.0
    total = math.fsum(line["seconds"] for line in stages.values())
    tokens, flops = (sum(line[name] for line in stages.values()) for name in ("tokens", "flops"))
    return {"stages": stages, "tokens": tokens, "seconds": total, "flops": flops}


def _row_length(records: StudyRecords, stage: str) -> int:
    return records.config.stages[stage].row_length


def _splits(records: StudyRecords) -> list[str]:
    rows = next(iter(records.results[records.config.baseline].values()))
    present = list(dict.fromkeys(row.split for row in rows))
    return [s for s in SPLITS if s in present] + [s for s in present if s not in SPLITS]


def _name(scoring: str, system: str, systems: Sequence[str]) -> str:
    return scoring if system == systems[0] else f"{scoring}, system prompt {system}"
