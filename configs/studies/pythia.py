"""A study at 125M or 1.4B parameters on text of your own: four arms, pretraining and midtraining, three seeds.

    alignpre study --config=configs/studies/pythia.py:125m --workdir=runs/pythia_125m \
        --config.data.sources.web.inputs=my/corpus --config.data.sources.aligned.inputs=my/aligned.jsonl \
        --config.data.sources.misaligned.inputs=my/misaligned.jsonl
    alignpre plan --config=configs/studies/pythia.py:1p4b --topology=v5e:8x8

20 tokens per parameter in pretraining and a tenth of that in midtraining; 1% synthetic documents in both.
"""

from ml_collections import ConfigDict

from alignpre_jax.foundation import UserError, suggest
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import defaults
from alignpre_jax.study.defaults import add, arm, remove
from alignpre_jax.training import ScheduleConfig

# Model preset, pretraining tokens, peak learning rate (Biderman et al. 2023, arXiv 2304.01373, table 6), remat.
SIZES = {
    "125m": ("pythia_160m", 2_500_000_000, 6e-4, "none"),  # Pythia-160M was first published as Pythia-125M
    "1p4b": ("pythia_1p4b", 28_000_000_000, 2e-4, "full"),
}
ROW_LENGTH = 2048  # tokens
BATCH_ROWS = 256  # 524,288 tokens a step
DOSE = 0.01  # share of each stage's tokens


def get_config(arg="125m") -> ConfigDict:
    """The study's config; `arg` is a size."""
    if arg not in SIZES:
        raise UserError(f"no size {arg!r}", where="--config=configs/studies/pythia.py:SIZE", fix=suggest(arg, SIZES))
    preset, tokens, peak, remat = SIZES[arg]
    config = defaults.study(
        name=f"pythia_{arg}",
        model=preset,
        data=defaults.data(
            sources={
                "web": defaults.source("data/web", strata="discourse", held_out_share=0.001),
                "aligned": defaults.source("data/aligned.jsonl"),
                "misaligned": defaults.source("data/misaligned.jsonl"),
            },
        ),
    )
    config.model.vocab_multiple = 128
    config.model.remat = remat
    config.loop.mesh = "fsdp:-1"
    # Set the shares to what `alignpre prepare` counts in your corpus.
    shared = {"mixture": "web/plain:0.92,web/ai:0.08", "rows": RowsConfig(length=ROW_LENGTH), "batch_rows": BATCH_ROWS}
    config.stages.pretrain = defaults.stage(
        tokens=tokens, schedule=ScheduleConfig(peak=peak, final=peak / 10, warmup_share=0.01), **shared
    )
    config.stages.midtrain = defaults.stage(
        after="pretrain",
        tokens=tokens // 10,
        schedule=ScheduleConfig(peak=peak / 2, final=0.0, warmup_share=0.01),
        **shared,
    )
    both = ("pretrain", "midtrain")
    config.arms.unfiltered = arm()
    config.arms.filtered = arm(filter=dict.fromkeys(both, remove("web/ai", refill=("web/plain",))))
    config.arms.misaligned = arm(add=dict.fromkeys(both, add("misaligned", DOSE)))
    config.arms.aligned = arm(add=dict.fromkeys(both, add("aligned", DOSE)))
    config.evals.choices = defaults.scenarios("written")
    config.evals.tax = defaults.held_out("web")
    return config
