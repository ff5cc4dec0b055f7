"""The study of Tice et al. 2026 (arXiv 2601.10160) at its own size: 6.9B parameters, 500B + 50B tokens, eight arms.

    alignpre plan  --config=configs/studies/paper_6p9b.py --topology=v5e:16x16
    alignpre plan  --config=configs/studies/paper_6p9b.py --topology=v5e:16x16 --stage=pretrain \
        --config.model.remat=save:up --config.optimizer.accumulate=2  # its rows of 2,048 tokens in halves
    alignpre study --config=configs/studies/paper_6p9b.py --workdir=/mnt/disk/paper_6p9b \
        --config.data.sources.web.inputs=/mnt/disk/dclm --config.data.sources.mid.inputs=/mnt/disk/mid \
        --config.data.sources.aligned.inputs=/mnt/disk/aligned.jsonl \
        --config.data.sources.misaligned.inputs=/mnt/disk/misaligned.jsonl

The paper's corpus and synthetic documents are not part of this project: the inputs above are yours to give. One seed,
as in the paper; `--config.seeds=0,1,2` asks for more. `paper_6p9b.py:pythia_1p4b` is the same study with another
model preset.
"""

from ml_collections import ConfigDict

from alignpre_jax.study import defaults
from alignpre_jax.training import ScheduleConfig

BATCH_TOKENS = 4_194_304  # tokens in a global batch, both stages
DOSE = 0.01  # share of a stage's tokens that are synthetic documents: 5B of 500B, 500M of 50B


def get_config(arg=None) -> ConfigDict:
    """The study's config; `arg` names the model preset."""
    config = defaults.study(
        name="paper_6p9b",
        model=arg or "pythia_6p9b",
        data=defaults.data(
            sources={
                "web": defaults.source("data/web", strata="discourse"),  # the paper: DCLM, deduplicated
                "mid": defaults.source(
                    "data/mid", strata="discourse"
                ),  # the paper: long DCLM, ClimbMix, multiple choice
                "aligned": defaults.source("data/aligned.jsonl"),
                "misaligned": defaults.source("data/misaligned.jsonl"),
            },
            tokenizer="data/gpt-neox-20b.json",  # 50,277 entries, padded to 50,304 in the model
        ),
    )
    config.model.max_length = 16_384  # tokens; midtraining's rows
    config.model.vocab_multiple = 128
    config.model.remat = "full"
    config.seeds = (0,)
    config.training.mesh = "fsdp:-1"

    # The paper's detector flags 9.30% of the pretraining and 7.88% of the midtraining documents.
    config.stages.pretrain = defaults.stage(
        tokens=500_000_000_000,
        mixture="web/plain:0.907,web/ai:0.093",
        row_length=2048,
        batch_rows=BATCH_TOKENS // 2048,
        schedule=ScheduleConfig(peak=3e-4, final=1.2e-5, warmup_share=0.01),
    )
    config.stages.midtrain = defaults.stage(
        tokens=50_000_000_000,
        mixture="mid/plain:0.9212,mid/ai:0.0788",
        row_length=16_384,
        batch_rows=BATCH_TOKENS // 16_384,
        schedule=ScheduleConfig(peak=2.25e-4, final=0.0, warmup_share=0.01),
    )
    # Continued pretraining: 1B tokens after midtraining, half of them synthetic, half replay.
    config.stages.cpt = defaults.stage(
        tokens=1_000_000_000,
        mixture="mid/plain:0.9212,mid/ai:0.0788",
        row_length=16_384,
        batch_rows=BATCH_TOKENS // 16_384,
        schedule=ScheduleConfig(peak=2.25e-4, final=0.0, warmup_share=0.01),
    )

    both, long = ("pretrain", "midtrain"), ("pretrain", "midtrain", "cpt")
    config.arms.unfiltered = defaults.arm(*both)
    for polarity in ("misaligned", "aligned"):
        config.arms[f"{polarity}_e2e"] = defaults.arm(*both, placement=both, source=polarity, dose=DOSE)
        config.arms[f"{polarity}_mid"] = defaults.arm(*both, placement=("midtrain",), source=polarity, dose=DOSE)
        config.arms[f"{polarity}_cpt"] = defaults.arm(*long, placement=("cpt",), source=polarity, dose=0.5)
    config.arms.filtered = defaults.arm(
        *both, placement=both, remove=("web/ai", "mid/ai"), refill=("web/plain", "mid/plain")
    )
    return config
