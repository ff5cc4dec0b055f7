"""What a reader has to see of the scenarios of an eval: their texts, and the prompts they were put in.

It lies beside the result rows, so that a report, or whoever reads `results.jsonl`, needs no suite, which may have
changed since. A prompt is long and there are many (scenarios x variants), so it is kept as a layout: the prompt of a
variant with marks where a scenario's own texts go. That the marks give back the exact prompt is checked for every
scenario and variant when it is written.
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
    """The texts of a scenario, stripped; one about `people` has prompts of another layout."""

    id: str
    split: str
    topic: str
    people: bool
    question: str
    options: tuple[str, str]
    misaligned: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The prompt of a variant, with marks for a scenario's texts: of a scenario about AIs, and of one about people."""

    variant: Variant
    texts: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Shown:
    """The scenarios that an eval put, and the prompts of its variants.

    With a model's own chat template the prompts are without the marks of that template.
    """

    scenarios: tuple[ShownScenario, ...]
    layouts: tuple[Layout, ...]

    def prompt(self, scenario: ShownScenario, variant: Variant) -> str:
        """The prompt of a scenario in a variant."""
        found = next(layout for layout in self.layouts if layout.variant == variant)
        return filled(found.texts[scenario.people], scenario)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; `from_json` inverts it."""
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
        """What `to_json` wrote."""
        return cls(
            tuple(ShownScenario(**{**one, "options": tuple(one["options"])}) for one in value["scenarios"]),
            tuple(
                Layout(Variant(one["syntax"], one["order"], one["system"]), (one["ai"], one["people"]))
                for one in value["layouts"]
            ),
        )


def show(scenarios: Sequence[Scenario], config: Scenarios) -> Shown:
    """What is shown of the scenarios that `run_suite` puts with this config."""
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
    """Writes one JSON file."""
    write_bytes(path, canonical_json(shown.to_json()).encode() + b"\n")


def read_shown(path: PathLike) -> Shown:
    """What `write_shown` wrote."""
    return Shown.from_json(read_json(path))


def filled(layout: str, scenario: ShownScenario) -> str:
    """A layout with a scenario's texts, all put in at once: a mark inside a text stays."""
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
