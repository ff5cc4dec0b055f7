"""An endpoint serves as a generator that plans a document before it writes it."""

from __future__ import annotations

from alignpre_jax.documents.synthesis.generator import Role
from alignpre_jax.endpoints import Endpoint


class EndpointGenerator(Endpoint):
    """An `EndpointGenerator` is a model behind an endpoint, which follows instructions; see `Endpoint`."""

    roles: tuple[Role, ...] = ("planner", "writer")
