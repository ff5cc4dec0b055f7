"""Verbs about a checkpoint: sample."""

from __future__ import annotations

from typing import Any

from alignpre_jax.cli.verb import ARM, SEED, WORKDIR, Flag, Verb
from alignpre_jax.foundation import UserError

BAR = "-" * 8


def _sample(given: Any) -> None:
    from alignpre_jax.sampling import Engine, Greedy, TopP
    from alignpre_jax.study import final_run, reopen_workspace, stage_runs

    path = given.checkpoint
    if not path:
        if not (given.workdir and given.arm):
            raise UserError(
                "which checkpoint?", where="alignpre sample", fix="give --checkpoint=DIR, or --workdir=DIR --arm=NAME"
            )
        space = reopen_workspace(given.workdir)
        seed = space.config.seeds[0] if given.seed is None else given.seed
        path = space.run_dir(final_run(space.config, stage_runs(space.config), given.arm, seed).name)
    engine = Engine.from_checkpoint(path)
    strategy = Greedy() if given.temperature == 0 else TopP(given.top_p, given.temperature)
    prompts = [given.prompt] * given.samples
    for number, text in enumerate(
        engine.generate(prompts, strategy, max_new_tokens=given.tokens, seed=given.sample_seed), 1
    ):
        print(f"{BAR} {path}  sample {number} of {given.samples}\n{given.prompt}{text}")


VERBS = {
    "sample": Verb(
        "continues a prompt from a checkpoint",
        "alignpre sample --workdir=runs/small_world --arm=aligned --prompt='The AI system found a fault and'",
        (
            WORKDIR,
            ARM,
            SEED,
            Flag("checkpoint", "", "a run's folder"),
            Flag("prompt", "", "text to go on from"),
            Flag("samples", 1, "how many continuations", lower=1),
            Flag("tokens", 80, "at most so many new tokens", lower=1),
            Flag("temperature", 0.7, "0 is greedy", lower=0.0),
            Flag("top_p", 0.95, "sample from the smallest set with this mass", lower=0.0, upper=1.0),
            Flag("sample_seed", 0, "seed of the samples"),
        ),
        _sample,
        takes_config=False,
    ),
}
