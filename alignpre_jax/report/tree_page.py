"""The page of a study's tree is one HTML file that loads nothing: stages, the runs that arms share, what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from alignpre_jax.foundation.page import OKABE_ITO, VARIABLES, page_environment
from alignpre_jax.study.outline import Outline, StageOutline


@dataclasses.dataclass(frozen=True)
class _Node:
    """A stage with the stages that go on from it."""

    stage: StageOutline
    after: tuple[_Node, ...]


def tree_page(outline: Outline) -> str:
    """Renders the page. Stages are drawn as a tree, every run with its arms; all text is escaped by jinja2."""
    others = outline.arms[1:]
    colours = {arm: VARIABLES[OKABE_ITO[number % len(OKABE_ITO)]] for number, arm in enumerate(others)}
    page = page_environment(__package__, {}).get_template("tree.html.j2")
    return page.render(
        outline=outline,
        roots=tuple(_nodes(outline, "")),
        colours={arm: f"var({colours.get(arm, '--ink')})" for arm in outline.arms},
        runs=sum(len(stage.runs) for stage in outline.stages) * len(outline.seeds),
        started=any(run.trained for stage in outline.stages for run in stage.runs),
    )


def _nodes(outline: Outline, after: str) -> Iterator[_Node]:
    for stage in outline.stages:
        if stage.after == after:
            yield _Node(stage, tuple(_nodes(outline, stage.name)))
