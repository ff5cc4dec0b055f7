"""The verb that shows a study before it runs: tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignpre_jax.cli.verb import JSON, Flag, Verb, study_config
from alignpre_jax.foundation import UserError, write_bytes, write_json

if TYPE_CHECKING:
    from alignpre_jax.study.outline import Outline, RunOutline


def _tree(given: Any) -> None:
    from alignpre_jax.study import open_workspace, reopen_workspace
    from alignpre_jax.study.outline import outline

    if given.workdir and not given.config:
        space = reopen_workspace(given.workdir)
        found = outline(space.config, space)
    elif given.config:
        config = study_config(given)
        found = outline(config, open_workspace(config, given.workdir, keep=False) if given.workdir else None)
    else:
        fix = "give --config=FILE, or --workdir=DIR of a study that is there, or both"
        raise UserError("the tree of what?", where="alignpre tree", fix=fix)
    print("\n".join(lines(found)))
    if given.json:
        write_json(given.json, dataclasses.asdict(found))
    if given.html:
        from alignpre_jax.report.tree_page import tree_page

        write_bytes(given.html, tree_page(found).encode())
        print(f"\npage: {given.html}")


def lines(found: Outline) -> Iterator[str]:
    """The tree as text."""
    seeds, runs = len(found.seeds), sum(len(stage.runs) for stage in found.stages)
    arms, stages = len(found.arms), len(found.stages)
    counts = ((arms, "arm"), (stages, "stage"), (seeds, "seed"), (runs * seeds, "run"))
    yield f"{found.name}: " + ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
    if found.tokens is not None and found.unshared_tokens:
        alone = f"; {found.unshared_tokens:,} if no run were shared" if found.unshared_tokens > found.tokens else ""
        yield f"{found.tokens:,} tokens are trained on in all{alone}"
    for stage in found.stages:
        bar = "    " * stage.depth
        yield ""
        yield f"{bar}{stage.name}: {stage.what}"
        if stage.evals:
            yield f"{bar}    asked: {', '.join(stage.evals)}"
        for run in stage.runs:
            yield f"{bar}  - {_run(run, found)}"


def _run(run: RunOutline, found: Outline) -> str:
    who = "all arms" if len(run.arms) == len(found.arms) else ", ".join(run.arms)
    parts = [who + (f": {run.change}" if run.change else "")]
    if run.learnt_tokens is not None:
        parts.append(f"{run.tokens:,} tokens, {run.learnt_tokens:,} of them learnt")
    if run.trained:
        parts.append(f"{run.trained} of {len(found.seeds)} seeds trained, {run.answered} asked")
    return "; ".join(parts)


VERBS = {
    "tree": Verb(
        "shows a study before it runs: the tree of stages, what arms share, tokens, evals, and what is done already",
        "alignpre tree --config=configs/studies/small_world.py",
        (
            Flag("workdir", "", "a study's folder: what is done in it is shown"),
            Flag("html", "", "draw the tree as a page, here"),
            JSON,
        ),
        _tree,
        more=("alignpre tree --workdir=runs/small_world --html=tree.html",),
    ),
}
