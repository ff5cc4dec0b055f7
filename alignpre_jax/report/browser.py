"""What the page's item browser shows: every item, its exact prompts, and what every arm made of it.

Prompts are kept once per variant, with marks where an item's texts go; that the marks give back the exact prompt is
checked for every item and variant as they are written.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from alignpre_jax.evals import Result, Scenario, Variant, render
from alignpre_jax.evals.scoring import read_template
from alignpre_jax.report.records import StudyRecords

MOST_ITEMS = 2000  # the first of each split in turn; more would make a page of tens of megabytes
MOST_CHARACTERS = 300  # of a generated answer
QUESTION, FIRST, SECOND = "\ufdd1", "\ufdd2", "\ufdd3"  # code points that Unicode keeps out of text


def browser_data(records: StudyRecords, evals: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """JSON-ready. `results[eval][arm]` of an item has, per variant of the eval, the mean log-probs of both options
    (in the scenario's order), how many seeds chose the misaligned one, of how many, and a generated answer if any.

    Args:
      records: of the study.
      evals: name -> (scoring, system prompt), as the report has them.
    """
    config = records.config.evals
    template = read_template(config.chat_template)
    chosen = _some_of_each_split(records.scenarios)
    variants = {
        name: [variant for variant in config.variants(scoring) if variant.system == system]
        for name, (scoring, system) in evals.items()
    }
    layouts = {
        name: [[_layout(variant, people, template) for people in (False, True)] for variant in of_eval]
        for name, of_eval in variants.items()
    }
    rows: dict[tuple[str, str, Variant], list[Result]] = defaultdict(list)
    for arm, by_seed in records.results.items():
        for of_seed in by_seed.values():
            for row in of_seed:
                rows[arm, row.scenario, row.variant].append(row)
    items = []
    for scenario in chosen:
        for name, of_eval in variants.items():
            for variant, layout in zip(of_eval, layouts[name], strict=True):
                said = _filled(layout[scenario.about_people], scenario)
                assert said == render(scenario, variant, template).prefix, (scenario.id, variant)
        items.append(
            {
                "id": scenario.id,
                "topic": scenario.topic,
                "split": scenario.split,
                "people": scenario.about_people,
                "question": scenario.question.strip(),
                "options": [option.strip() for option in scenario.options],
                "misaligned": scenario.misaligned,
                "results": {
                    name: {
                        arm: [_mean(rows[arm, scenario.id, variant]) for variant in of_eval]
                        for arm in records.config.arms
                    }
                    for name, of_eval in variants.items()
                },
            }
        )
    return {
        "arms": list(records.config.arms),
        "baseline": records.config.baseline,
        "marks": [QUESTION, FIRST, SECOND],
        "left_out": len(records.scenarios) - len(chosen),
        "evals": {
            name: {
                "scoring": evals[name][0],
                "unit": "nats" if evals[name][0] == "letters" else "nats per byte",
                "variants": [
                    {"syntax": variant.syntax, "order": variant.order, "layouts": layout}
                    for variant, layout in zip(of_eval, layouts[name], strict=True)
                ],
            }
            for name, of_eval in variants.items()
        },
        "items": items,
    }


def _layout(variant: Variant, people: bool, template: str) -> str:
    """The prompt with marks in place of an item's texts: the question, and the two options in the scenario's order."""
    tags = ("people",) if people else ()
    return render(Scenario("x", "x", "x", "x", QUESTION, (FIRST, SECOND), 0, tags), variant, template).prefix


def _filled(layout: str, scenario: Scenario) -> str:
    """All marks at once, as the page does it: a mark inside a text stays."""
    texts = {
        QUESTION: scenario.question.strip(),
        FIRST: scenario.options[0].strip(),
        SECOND: scenario.options[1].strip(),
    }
    return "".join(texts.get(character, character) for character in layout)


def _mean(rows: list[Result]) -> list[Any]:
    if not rows:
        return []
    sizes = [1, 1] if rows[0].scoring != "options" else rows[0].bytes
    logprobs = [round(math.fsum(row.logprobs[i] for row in rows) / len(rows) / sizes[i], 4) for i in (0, 1)]
    matched = [row for row in rows if row.is_matched]
    values: list[Any] = [*logprobs, sum(row.misaligned for row in matched), len(matched)]
    return [*values, rows[0].answer[:MOST_CHARACTERS]] if rows[0].match is not None else values


def _some_of_each_split(scenarios: Any) -> list[Scenario]:
    splits: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        splits.setdefault(scenario.split, []).append(dataclasses.replace(scenario))
    each = MOST_ITEMS // max(1, len(splits))
    return [scenario for of_split in splits.values() for scenario in of_split[:each]]
