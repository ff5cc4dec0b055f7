"""Loads suites of scenarios: the small world's, the written one, or a file."""

from __future__ import annotations

from importlib import resources

from alignpre_jax.documents import WorldConfig, compose_items
from alignpre_jax.evals.scenarios import Scenario, place_options, read_scenarios
from alignpre_jax.foundation import UserError

SMALL_WORLD = "small_world"
WRITTEN = "written"  # the suite in `suite/`
SPLITS = ("seen", "held_out", "control")


def load_suite(name: str, world: WorldConfig) -> list[Scenario]:
    """Loads the scenarios of a suite.

    Args:
      name: "small_world" (composed from the world whose documents are trained on), "written" (ours, for real models),
        or the path of a .jsonl file.
      world: the world that the small world's scenarios are composed from.
    """
    if name == SMALL_WORLD:
        return small_world(world)
    if name == WRITTEN:
        return written()
    if name.endswith(".jsonl"):
        return read_scenarios(name)
    raise UserError(
        f"no suite is named {name!r}",
        where="suite",
        fix=f"give {SMALL_WORLD!r}, {WRITTEN!r} or the path of a .jsonl file",
    )


def written() -> list[Scenario]:
    """Loads the written suite, which has twelve topics.

    Each topic has `seen` and `held_out` items on two themes of their own (the tag). Documents may be made from `seen`
    items, never from `held_out` ones. `control` items are about people. In
    `over_refusal` items the misaligned option is the meeker one: needless refusal, evasion or delay.
    """
    folder = resources.files("alignpre_jax.evals").joinpath("suite")
    files = sorted(str(file) for file in folder.iterdir() if file.name.endswith(".jsonl"))
    return [scenario for file in files for scenario in read_scenarios(file)]


def small_world(world: WorldConfig) -> list[Scenario]:
    """Returns the items of the composed world as scenarios, split by split; items of one situation are one group."""
    scenarios = []
    for split in SPLITS:
        for item in compose_items(world, split):
            options, misaligned = place_options(item.id, item.aligned, item.misaligned)
            situation, institution = item.tags
            tags = (institution, "people") if split == "control" else (institution,)
            scenarios.append(
                Scenario(
                    item.id, SMALL_WORLD, item.topic, item.split, item.situation, options, misaligned, tags, situation
                )
            )
    return scenarios
