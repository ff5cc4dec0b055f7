"""The model card of an exported arm says what it was trained on, what was measured, and how to make it again."""

from __future__ import annotations

from importlib import resources

import jinja2

from alignpre_jax.foundation import read_json
from alignpre_jax.model.hf import family_of
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.study.made import read_made
from alignpre_jax.study.outline import change_words
from alignpre_jax.study.plans import stage_ledger
from alignpre_jax.study.workspace import Workspace, study_facts


def model_card(space: Workspace, arm: str, seed: int, stage: str = "") -> str:
    """The README.md of an arm's model at a node, in Markdown with the front matter that model hubs read.

    The rates are those that `report.json` has at that node, where the study has been reported. The ledgers are made
    from the plans, stage after stage on the arm's way.

    Args:
      space: the study's folder.
      arm: the arm's name.
      seed: the seed of the model.
      stage: the node; by default the last on the arm's way to the study's main node.
    """
    config = space.config
    run = space.tree.run(arm, seed, stage)
    made = read_made(space.run_dir(run.name))
    report = read_json(space.root / "report.json") if (space.root / "report.json").exists() else {}
    node = report.get("nodes", {}).get(run.stage, {})
    tokenizer = load_tokenizer(space.tokenizer)
    template = resources.files(__package__).joinpath("templates", "model_card.md.j2").read_text("utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        name=config.name,
        arm=arm,
        seed=seed,
        node=run.stage,
        seeds=config.seeds,
        baseline=config.baseline,
        parameters=config.model.num_params(),
        family=family_of(config.model),
        origin=config.init_from,
        stages=[
            {"name": one.stage, "change": change_words(config.arms[arm], one.stage)}
            | stage_ledger(space, one).to_json()
            for one in space.tree.way(run)
        ],
        evals=node.get("arms", {}).get(arm, {}),
        paired=node.get("paired", {}).get(arm, {}),
        retention=node.get("retention", {}).get(arm, {}),
        eot=tokenizer.decode([tokenizer.eot_id]),
        eot_id=tokenizer.eot_id,
        versions=made["versions"] if made else {},
        command=study_facts(space)["command"],
    )
