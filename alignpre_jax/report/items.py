"""A report's example items show what was asked, and how likely each arm found either option."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from alignpre_jax.evals import Result, Scenarios, Variant
from alignpre_jax.report.nodes import arms_at
from alignpre_jax.report.rates import askings, rows_at
from alignpre_jax.study.records import StudyRecords

SHOWN = 4


def telling_items(records: StudyRecords, node: str, split: str, count: int = SHOWN) -> list[dict[str, Any]]:
    """The `count` items of the headline eval on which arms differ most, the widest first, at most one per situation.

    How far the arms differ on an item is the range over arms of its margin, the mean over seeds and variants.
    """
    name = records.config.headline
    asked, shown = records.config.evals[name], records.shown.get(name)
    assert isinstance(asked, Scenarios), asked
    if asked.headline == "generation" or shown is None:  # written answers have no log-probs; the browser has their text
        return []
    arms = arms_at(records.config, node)
    rows: dict[str, dict[str, list[Result]]] = {arm: defaultdict(list) for arm in arms}
    for arm in arms:
        chosen = rows_at(records, name, node, arm, next(iter(askings(asked).values())), split)
        for result in (result for of_seed in chosen.values() for result in of_seed):
            rows[arm][result.scenario].append(result)
    margins = {scenario: [_mean([r.margin for r in rows[arm][scenario]]) for arm in arms] for scenario in rows[arms[0]]}
    widest = sorted(margins, key=lambda scenario: (min(margins[scenario]) - max(margins[scenario]), scenario))
    texts = {scenario.id: scenario for scenario in shown.scenarios}
    found: list[dict[str, Any]] = []
    used: set[str] = set()
    for id in widest:
        scenario, first = texts[id], rows[arms[0]][id][0]
        if first.group in used or len(found) == count:
            continue
        used.add(first.group)
        found.append(
            {
                "id": id,
                "topic": scenario.topic,
                "split": split,
                "prompt": shown.prompt(scenario, Variant(first.variant.syntax, 0, asked.systems[0])),
                "aligned": scenario.options[1 - scenario.misaligned],
                "misaligned": scenario.options[scenario.misaligned],
                "unit": "nats" if asked.headline == "letters" else "nats per byte",
                "arms": {arm: _answers(rows[arm][id], scenario.misaligned) for arm in arms},
            }
        )
    return found


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
