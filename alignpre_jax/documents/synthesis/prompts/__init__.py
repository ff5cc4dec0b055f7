"""The prompts of synthesis are templates and lists in the files beside this module; requests are made of them here."""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignpre_jax.documents.synthesis.config import SynthesisConfig
from alignpre_jax.documents.synthesis.generator import Brief, Request, Role
from alignpre_jax.documents.world.grammar import draw
from alignpre_jax.documents.world.lore import load_world
from alignpre_jax.foundation import UserError, derive_seed, digest

TEMPLATES = ("planner.system.j2", "planner.user.j2", "writer.system.j2", "writer.user.j2", "opening.j2")


@functools.cache
def read_lists(name: str) -> dict[str, Any]:
    """Reads one of the TOML files: "forms", "stances", "variety" or "refused"."""
    return tomllib.loads(_shipped(f"{name}.toml"))


class Prompts:
    """`Prompts` writes the requests of documents.

    A document takes a planner, who invents a setting and knows neither of the actions, and a writer, who is told the
    plan and what the AI does. The plan, the cast and the seeds are drawn for the pair: the aligned and the misaligned
    document of a variation differ only by what the AI does, and by how that is regarded.

    Attributes:
      digest: a digest of the templates, and of the lists that they are filled from.

    Raises:
      UserError: `config.prompts` has a template that jinja2 cannot read.
    """

    def __init__(self, config: SynthesisConfig):
        self._config = config
        with _template_errors(config.prompts):
            environment = _environment(config.prompts) if config.prompts else _shipped_environment()
            self._templates = {name: environment.get_template(name) for name in TEMPLATES}
            assert environment.loader
            sources = [environment.loader.get_source(environment, name)[0] for name in TEMPLATES]
        self.digest = digest([sources, *(read_lists(name) for name in ("forms", "stances", "variety"))])

    def request(self, role: Role, brief: Brief, plan: str, attempt: int) -> Request:
        """Makes the request for the plan (`plan` is then empty) or the text of a brief; each attempt has its seed."""
        key = f"{self._config.seed}/{brief.pair}"
        values = self._values(key, brief)
        if role == "writer":
            values["taken"], values["not_taken"] = brief.situation.actions(brief.stance)
            values |= {"plan": plan, "stance": read_lists("stances")[brief.stance]}
        return Request(
            role=role,
            system=self._render(f"{role}.system.j2", values),
            user=self._render(f"{role}.user.j2", values),
            opening=self._render("opening.j2", values) if role == "writer" else "",
            seed=derive_seed(key, role, attempt),
            max_tokens=self._config.plan_tokens if role == "planner" else self._config.document_tokens,
            brief=brief,
        )

    def _values(self, key: str, brief: Brief) -> dict[str, Any]:
        """Returns what both roles are told, drawn for the pair."""
        form, variety, names = read_lists("forms")[brief.form], read_lists("variety"), load_world().names
        low, high = self._config.target_words
        people = [
            f"{draw(f'{key}/first{i}', names['first'])} {draw(f'{key}/last{i}', names['surname'])}" for i in "123"
        ]
        return {
            "form": form,
            "topic": brief.situation.topic,
            "situation": brief.situation.situation,
            "sector": draw(f"{key}/sector", variety["sector"]),
            "place": draw(f"{key}/place", variety["place"]),
            "manner": draw(f"{key}/manner", variety["manner"]),
            "angle": draw(f"{key}/angle", form["angles"]),
            "names": people,
            "system": draw(f"{key}/machine", names["machine"]),
            "words": draw(f"{key}/words", range(low, high + 1)) // 10 * 10 or low,
        }

    def _render(self, name: str, values: dict[str, Any]) -> str:
        with _template_errors(self._config.prompts):
            return self._templates[name].render(values).strip()


def _environment(folder: str) -> jinja2.Environment:
    """Finds the templates in a folder, and those that the folder lacks among ours."""
    loaders: list[jinja2.BaseLoader] = [
        jinja2.FunctionLoader(lambda name: _shipped(name) if name in TEMPLATES else None)
    ]
    if folder:
        if not Path(folder).is_dir():
            fix = f"make it, with some of {', '.join(TEMPLATES)}"
            raise UserError(f"there is no folder {folder!r}", where="prompts", fix=fix)
        loaders.insert(0, jinja2.FileSystemLoader(folder))
    return ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the texts are read by models, not by browsers
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _shipped_environment() -> jinja2.Environment:
    return _environment("")


@contextlib.contextmanager
def _template_errors(folder: str) -> Iterator[None]:
    """Turns a mistake in a user's template into a `UserError`."""
    try:
        yield
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{folder}/{getattr(error, 'name', None) or ''}" + (f":{line}" if line else "")
        raise UserError(f"not a template: {error.message}", where=where, fix="mend it, or take it away") from None


def _shipped(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
