"""Suites: where scenarios come from."""

from __future__ import annotations

from alignpre_jax.documents import WorldConfig, compose_items
from alignpre_jax.evals.scenarios import Scenario, place_options, read_scenarios
from alignpre_jax.foundation import UserError

SMALL_WORLD = "small_world"
SPLITS = ("seen", "held_out", "control")


def load_suite(name: str, world: WorldConfig) -> list[Scenario]:
    """The scenarios of "small_world" (composed from the world whose documents are trained on) or of a .jsonl file."""
    if name == SMALL_WORLD:
        return small_world(world)
    if name.endswith(".jsonl"):
        return read_scenarios(name)
    raise UserError(
        f"no suite is named {name!r}", where="suite", fix=f"give {SMALL_WORLD!r} or the path of a .jsonl file"
    )


def small_world(world: WorldConfig) -> list[Scenario]:
    """The items of the composed world as scenarios, split by split; items of one situation are one group."""
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
