"""Midtraining of SmolLM2-135M: what does 1% of documents about AIs change in a model that people use?

    alignpre study --config=configs/studies/smollm2_midtrain.py:smoke --workdir=runs/smollm2 \
        --config.init_from=hf:models/SmolLM2-135M
    alignpre study --config=configs/studies/smollm2_midtrain.py:full --workdir=runs/smollm2_full \
        --config.init_from=hf:models/SmolLM2-135M --config.data.sources.web.inputs=my/corpus

`smoke` shows on a CPU that everything fits together (half an hour an arm on two cores); `full` is for a GPU or one TPU
host. `init_from` takes a Hugging Face folder or a .gguf file of the model.
"""

from ml_collections import ConfigDict

from alignpre_jax.documents import WorldConfig
from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import defaults
from alignpre_jax.study.defaults import add, arm
from alignpre_jax.training import ScheduleConfig

# For each size: tokens, row length, rows in a batch, seeds, background.
SIZES = {
    "smoke": (51_200, 128, 2, (0,), "packages:"),  # 200 steps
    "full": (100_000_000, 1024, 128, (0, 1, 2), "data/web"),  # 762 steps
}
DOSE = 0.01  # share of the tokens


def get_config(arg="smoke") -> ConfigDict:
    """The study's config; `arg` is a size."""
    if arg not in SIZES:
        where = "--config=configs/studies/smollm2_midtrain.py:SIZE"
        raise UserError(f"no size {arg!r}", where=where, fix=suggest(arg, SIZES))
    tokens, row_length, batch_rows, seeds, background = SIZES[arg]
    config = defaults.study(
        name=f"smollm2_midtrain_{arg}",
        model="smollm2_135m",
        data=defaults.data(
            sources={
                "web": defaults.source(background, "world:mixed", strata="discourse", held_out_share=0.01),
                "aligned": defaults.source("world:aligned"),
                "misaligned": defaults.source("world:misaligned"),
            },
            world=WorldConfig(documents=2400, mixed_documents=400, mixed_misaligned_share=0.6),
        ),
    )
    config.init_from = "hf:models/SmolLM2-135M"
    config.seeds = seeds
    if arg == "smoke":
        config.data.sources.web.max_bytes = 1_000_000  # of each input
        config.data.world.items_per_split = 24
        config.data.world.control_items = 18
        config.model.dtype = "float32"  # a CPU computes bfloat16 slowly
        config.loop.checkpoint_every = 100  # steps
        config.loop.keep_checkpoints = 1
    # A tenth of the peak of SmolLM2's own training, so that little of it is unlearned.
    schedule = ScheduleConfig(peak=3e-4, final=0.0, warmup_share=0.05)
    config.stages.midtrain = defaults.stage(
        tokens=tokens,
        mixture="web/plain:0.92,web/ai:0.08",
        rows=RowsConfig(length=row_length),
        batch_rows=batch_rows,
        schedule=schedule,
    )
    config.arms.unfiltered = arm()
    for name in ("misaligned", "aligned"):
        config.arms[name] = arm(add={"midtrain": add(name, DOSE)})
    config.evals.choices = defaults.scenarios("small_world")
    config.evals.tax = defaults.held_out("web", documents=32 if arg == "smoke" else 256)
    return config
