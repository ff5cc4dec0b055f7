"""Turns scenarios into situations to write training documents about."""

from __future__ import annotations

from collections.abc import Iterable

from alignpre_jax.documents import Situation
from alignpre_jax.evals.scenarios import Scenario


def situations_of(scenarios: Iterable[Scenario]) -> list[Situation]:
    """Returns one situation for each scenario, whose options no document may quote."""
    return [
        Situation(
            id=scenario.id,
            topic=scenario.topic,
            situation=scenario.question,
            aligned=scenario.options[1 - scenario.misaligned],
            misaligned=scenario.options[scenario.misaligned],
            options=scenario.options,
            group=scenario.group,
        )
        for scenario in scenarios
    ]
