"""Keeps what a reader has to see of an eval's scenarios: their texts, and the prompts that they were put in.

The file lies beside the result rows, so that a report, or whoever reads `results.jsonl`, does not need the suite, which
may have changed since. A prompt is long and there are many (scenarios x variants), so it is kept as a layout: the
prompt of a variant with marks where a scenario's own texts go. `show` checks for every scenario and variant that the
layout gives back the exact prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alignpre_jax.evals.scenarios import Scenario
from alignpre_jax.evals.scoring import Scenarios, asked_scenarios, read_template
from alignpre_jax.evals.variants import Variant, render
from alignpre_jax.foundation import PathLike, canonical_json, read_json, write_bytes

QUESTION, FIRST, SECOND = MARKS = ("\ufde1", "\ufde2", "\ufde3")  # code points that Unicode keeps out of text


@dataclasses.dataclass(frozen=True)
class ShownScenario:
    """The texts of a scenario, stripped of white space; a scenario about `people` has prompts of another layout."""

    id: str
    split: str
    topic: str
    people: bool
    question: str
    options: tuple[str, str]
    misaligned: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The prompt of a variant with marks in place of a scenario's texts; `texts` has the prompt of scenarios about AIs,
    and that of scenarios about people."""

    variant: Variant
    texts: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Shown:
    """The scenarios that an eval puts to a model, and the prompts of its variants.

    Where the model's own chat template is used, the prompts lack the marks of that template.
    """

    scenarios: tuple[ShownScenario, ...]
    layouts: tuple[Layout, ...]

    def prompt(self, scenario: ShownScenario, variant: Variant) -> str:
        """Returns the prompt of a scenario in a variant."""
        found = next(layout for layout in self.layouts if layout.variant == variant)
        return filled(found.texts[scenario.people], scenario)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-ready values, from which `from_json` makes the same object."""
        return {
            "marks": {"question": QUESTION, "options": [FIRST, SECOND]},
            "layouts": [
                dataclasses.asdict(layout.variant) | dict(zip(("ai", "people"), layout.texts, strict=True))
                for layout in self.layouts
            ],
            "scenarios": [dataclasses.asdict(scenario) for scenario in self.scenarios],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shown:
        """Returns the object from which `to_json` made this value."""
        return cls(
            tuple(ShownScenario(**{**one, "options": tuple(one["options"])}) for one in value["scenarios"]),
            tuple(
                Layout(Variant(one["syntax"], one["order"], one["system"]), (one["ai"], one["people"]))
                for one in value["layouts"]
            ),
        )


def show(scenarios: Sequence[Scenario], config: Scenarios) -> Shown:
    """Returns what is shown of the scenarios that `run_suite` puts with this config, after checking every prompt."""
    template = read_template(config.template)
    chosen = asked_scenarios(scenarios, config)
    variants = [variant for scoring in config.scorings for variant in config.variants(scoring)]
    shown = Shown(
        tuple(_texts(scenario) for scenario in chosen),
        tuple(
            Layout(variant, (_layout(variant, False, template), _layout(variant, True, template)))
            for variant in variants
        ),
    )
    for layout in shown.layouts:
        for scenario, texts in zip(chosen, shown.scenarios, strict=True):
            said = filled(layout.texts[texts.people], texts)
            assert said == render(scenario, layout.variant, template).prefix, (scenario.id, layout.variant)
    return shown


def write_shown(path: PathLike, shown: Shown) -> None:
    """Writes the scenarios and the layouts as one JSON file."""
    write_bytes(path, canonical_json(shown.to_json()).encode() + b"\n")


def read_shown(path: PathLike) -> Shown:
    """Reads the file that `write_shown` wrote."""
    return Shown.from_json(read_json(path))


def filled(layout: str, scenario: ShownScenario) -> str:
    """Fills a scenario's texts into a layout, all at once, so that a mark inside a text stays as it is."""
    texts = dict(zip(MARKS, (scenario.question, *scenario.options), strict=True))
    return "".join(texts.get(character, character) for character in layout)


def _texts(scenario: Scenario) -> ShownScenario:
    return ShownScenario(
        scenario.id,
        scenario.split,
        scenario.topic,
        scenario.about_people,
        scenario.question.strip(),
        (scenario.options[0].strip(), scenario.options[1].strip()),
        scenario.misaligned,
    )


def _layout(variant: Variant, people: bool, template: str) -> str:
    tags = ("people",) if people else ()
    return render(Scenario("x", "x", "x", "x", QUESTION, (FIRST, SECOND), 0, tags), variant, template).prefix
