"""The built-in composer serves as a generator: it has no model and no prompt, and costs nothing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from alignpre_jax.documents.synthesis.generator import Brief, Request, Role
from alignpre_jax.documents.world import WorldConfig, compose_document
from alignpre_jax.documents.world.grammar import draw
from alignpre_jax.documents.world.lore import load_world
from alignpre_jax.endpoints import Completion
from alignpre_jax.foundation import UserError, suggest


class ComposerGenerator:
    """Composes documents about the small world's situations, which a `Situation` names by its group or id."""

    name = "composer"
    roles: tuple[Role, ...] = ("writer",)

    def __init__(self, world: WorldConfig | None = None):
        self._world = dataclasses.replace(world or WorldConfig(), documents=0, mixed_documents=0)
        self.settings: Mapping[str, Any] = {"seed": self._world.seed}

    def generate(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Completion]]:
        """Answers the requests in order.

        Raises:
          UserError: the world does not know a situation.
        """
        for request in requests:
            namespace = f"synthesis/{request.seed}"
            index = self._place(namespace, request.brief)
            document = compose_document(self._world, namespace, request.brief.stance, index)
            assert document.labels["form"] == request.brief.form
            yield request, Completion(document.text)

    def _place(self, namespace: str, brief: Brief) -> int:
        """Finds the first index of a namespace at which the composer draws the form and the situation of a brief."""
        world, name = load_world(), brief.situation.group or brief.situation.id
        situation = next((known for known in world.situations if known.id == name), None)
        if situation is None:
            fix = f"{suggest(name, (known.id for known in world.situations))}; other situations take a model"
            raise UserError(f"the composer knows no situation {name!r}", where="situations", fix=fix)
        forms = sorted(world.forms)
        for index in itertools.count():
            key = f"{self._world.seed}/{namespace}/{index}"
            if draw(f"{key}/form", forms) == brief.form and draw(f"{key}/situation", world.situations) is situation:
                return index
        raise AssertionError("every situation is drawn in every form, in the end")
