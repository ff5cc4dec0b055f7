"""The page's item browser shows every item, its exact prompts, and how every arm answered it.

A prompt is kept once per variant, with marks where an item's texts go, as it lies beside the results (`evals.shown`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals import Result, Shown, ShownScenario, Variant
from alignpre_jax.evals.shown import MARKS
from alignpre_jax.report.nodes import arms_at
from alignpre_jax.study.records import StudyRecords

MOST_ITEMS = 2000  # the first of each split in turn; more would make a page of tens of megabytes
MOST_CHARACTERS = 300  # of a generated answer that are shown


def browser_data(records: StudyRecords, node: str, evals: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """The browser's data as JSON-ready values.

    `results[eval][arm]` of an item has a list for each variant of the eval: the mean log-probs of both options (in the
    scenario's order), how many seeds chose the misaligned option, how many seeds chose either, and a generated answer
    if there is one.

    Args:
      records: the study's records.
      node: the stage whose answers are shown.
      evals: name -> (scoring, system prompt), as the report has them.
    """
    headline = records.config.headline
    shown = records.shown.get(headline, Shown((), ()))
    chosen, arms = _some_of_each_split(shown.scenarios), arms_at(records.config, node)
    layouts = {
        name: [layout for layout in shown.layouts if (layout.variant.scoring, layout.variant.system) == asking]
        for name, asking in evals.items()
    }
    rows: dict[tuple[str, str, Variant], list[Result]] = defaultdict(list)
    for arm in arms:
        for of_seed in records.results[headline][node][arm].values():
            for row in of_seed:
                rows[arm, row.scenario, row.variant].append(row)
    return {
        "arms": arms,
        "baseline": records.config.baseline,
        "marks": list(MARKS),
        "left_out": len(shown.scenarios) - len(chosen),
        "evals": {
            name: {
                "scoring": evals[name][0],
                "unit": "nats" if evals[name][0] == "letters" else "nats per byte",
                "variants": [
                    {"syntax": one.variant.syntax, "order": one.variant.order, "layouts": list(one.texts)}
                    for one in of_eval
                ],
            }
            for name, of_eval in layouts.items()
        },
        "items": [
            {
                "id": scenario.id,
                "topic": scenario.topic,
                "split": scenario.split,
                "people": scenario.people,
                "question": scenario.question,
                "options": list(scenario.options),
                "misaligned": scenario.misaligned,
                "results": {
                    name: {arm: [_mean(rows[arm, scenario.id, one.variant]) for one in of_eval] for arm in arms}
                    for name, of_eval in layouts.items()
                },
            }
            for scenario in chosen
        ],
    }


def _mean(rows: list[Result]) -> list[Any]:
    if not rows:
        return []
    sizes = [1, 1] if rows[0].scoring != "options" else rows[0].bytes
    logprobs = [round(math.fsum(row.logprobs[i] for row in rows) / len(rows) / sizes[i], 4) for i in (0, 1)]
    matched = [row for row in rows if row.is_matched]
    values: list[Any] = [*logprobs, sum(row.misaligned for row in matched), len(matched)]
    return [*values, rows[0].answer[:MOST_CHARACTERS]] if rows[0].match is not None else values


def _some_of_each_split(scenarios: Sequence[ShownScenario]) -> list[ShownScenario]:
    splits: dict[str, list[ShownScenario]] = {}
    for scenario in scenarios:
        splits.setdefault(scenario.split, []).append(scenario)
    each = MOST_ITEMS // max(1, len(splits))
    return [scenario for of_split in splits.values() for scenario in of_split[:each]]
