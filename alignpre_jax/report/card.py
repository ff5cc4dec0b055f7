"""The model card of an exported arm: what it was trained on, what it measured, how to make it again."""

from __future__ import annotations

from importlib import resources

import jinja2

from alignpre_jax.foundation import read_json
from alignpre_jax.model.hf import family_of
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.study.graph import final_run, run_path, stage_runs
from alignpre_jax.study.plans import stage_ledger
from alignpre_jax.study.workspace import Workspace


def model_card(space: Workspace, arm: str, seed: int) -> str:
    """The README.md of an arm's model, in Markdown with the front matter that model hubs read.

    Rates are those of `report.json` where the study has been reported; the ledger is that of the plans.
    """
    config, runs = space.config, stage_runs(space.config)
    path = run_path(runs, final_run(config, runs, arm, seed))
    saved = read_json(space.root / "versions.json")
    report = read_json(space.root / "report.json") if (space.root / "report.json").exists() else {}
    tokenizer = load_tokenizer(space.tokenizer)
    template = resources.files(__package__).joinpath("templates", "model_card.md.j2").read_text("utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        name=config.name,
        arm=arm,
        seed=seed,
        seeds=config.seeds,
        baseline=config.baseline,
        parameters=config.model.num_params(),
        family=family_of(config.model),
        origin=config.init_from,
        stages=[{"name": run.stage, **stage_ledger(space, run).to_json()} for run in path],
        evals=report.get("arms", {}).get(arm, {}),
        paired=report.get("paired", {}).get(arm, {}),
        eot=tokenizer.decode([tokenizer.eot_id]),
        eot_id=tokenizer.eot_id,
        versions=saved["versions"],
        command=saved["command"],
    )
