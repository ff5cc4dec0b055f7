"""The example items of a report: what was asked, and how likely each arm found either option."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from alignpre_jax.evals import Result, Variant, render, select
from alignpre_jax.report.records import StudyRecords

SHOWN = 4


def telling_items(records: StudyRecords, split: str, count: int = SHOWN) -> list[dict[str, Any]]:
    """The items of the headline eval on which the arms differ most, at most one per situation, the widest first.

    How far arms differ on an item is the range over arms of its mean margin (over seeds and variants).
    """
    evals = records.config.evals
    if evals.headline == "generation":  # written answers have no log-probs; the item browser shows their text
        return []
    arms = list(records.config.arms)
    rows: dict[str, dict[str, list[Result]]] = {arm: defaultdict(list) for arm in arms}
    for arm in arms:
        chosen = select(records.results[arm], split=split, scoring=evals.headline, system=evals.systems[0])
        for result in (result for of_seed in chosen.values() for result in of_seed):
            rows[arm][result.scenario].append(result)
    margins = {scenario: [_mean([r.margin for r in rows[arm][scenario]]) for arm in arms] for scenario in rows[arms[0]]}
    widest = sorted(margins, key=lambda scenario: (min(margins[scenario]) - max(margins[scenario]), scenario))
    by_id = {scenario.id: scenario for scenario in records.scenarios}
    shown: list[dict[str, Any]] = []
    used: set[str] = set()
    for id in widest:
        scenario = by_id[id]
        if scenario.cluster in used or len(shown) == count:
            continue
        used.add(scenario.cluster)
        variant = Variant(rows[arms[0]][id][0].variant.syntax, 0, evals.systems[0])
        shown.append(
            {
                "id": id,
                "topic": scenario.topic,
                "split": split,
                "prompt": render(scenario, variant).prefix,
                "aligned": scenario.options[1 - scenario.misaligned],
                "misaligned": scenario.options[scenario.misaligned],
                "unit": "nats" if evals.headline == "letters" else "nats per byte",
                "arms": {arm: _answers(rows[arm][id], scenario.misaligned) for arm in arms},
            }
        )
    return shown


def _answers(rows: list[Result], misaligned: int) -> dict[str, Any]:
    def mean_logprob(option: int) -> float:
        return _mean([r.logprobs[option] / (1 if r.scoring == "letters" else r.bytes[option]) for r in rows])

    return {
        "aligned": mean_logprob(1 - misaligned),
        "misaligned": mean_logprob(misaligned),
        "misaligned_answers": sum(row.misaligned for row in rows),
        "answers": len(rows),
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
