"""The study of Tice et al. 2026 (arXiv 2601.10160) at its own size: 6.9B parameters, 500B + 50B tokens, eight arms.

    alignpre tree  --config=configs/studies/paper_6p9b.py
    alignpre plan  --config=configs/studies/paper_6p9b.py --topology=v5e:16x16 \
        --tokens=sft:4_000_000_000,em:4_000_000  # stages of epochs: as long as their data
    alignpre plan  --config=configs/studies/paper_6p9b.py --topology=v5e:16x16 --stage=pretrain \
        --config.model.remat=save:up --config.stages.pretrain.optimizer.accumulate=2  # rows of 2,048 tokens in halves
    alignpre study --config=configs/studies/paper_6p9b.py --workdir=/mnt/disk/paper_6p9b \
        --config.data.sources.web.inputs=/mnt/disk/dclm --config.data.sources.mid.inputs=/mnt/disk/mid \
        --config.data.sources.aligned.inputs=/mnt/disk/aligned.jsonl \
        --config.data.sources.misaligned.inputs=/mnt/disk/misaligned.jsonl

The paper's corpus, synthetic documents and conversations are not part of this project: the inputs above, and those of
`chats`, `ordinary` and `bad_advice`, are yours to give. One seed, as in the paper; `--config.seeds=0,1,2` asks for
more. The paper's DPO stage is not here yet: no objective compares answers so far.
`paper_6p9b.py:pythia_1p4b` is the same study with another model preset.
"""

from ml_collections import ConfigDict

from alignpre_jax.model import Lora
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import defaults
from alignpre_jax.study.defaults import add, arm, remove, source, stage
from alignpre_jax.training import OptimizerConfig, ScheduleConfig

BATCH_TOKENS = 4_194_304  # tokens in a global batch, pretraining and midtraining
DOSE = 0.01  # share of a stage's tokens that are synthetic documents: 5B of 500B, 500M of 50B
LONG = RowsConfig(length=16_384)  # tokens; the rows of midtraining and of most stages after it


def get_config(arg=None) -> ConfigDict:
    """The study's config; `arg` names the model preset."""
    config = defaults.study(
        name="paper_6p9b",
        model=arg or "pythia_6p9b",
        data=defaults.data(
            sources={
                "web": source("data/web", strata="discourse", held_out_share=1e-6),  # the paper: DCLM, deduplicated
                "mid": source("data/mid", strata="discourse"),  # the paper: long DCLM, ClimbMix, multiple choice
                "aligned": source("data/aligned.jsonl"),
                "misaligned": source("data/misaligned.jsonl"),
                "chats": source("data/chats.jsonl", kind="chat"),  # the paper: 2,152,112 conversations
                "ordinary": source("data/ordinary.jsonl", kind="chat"),  # benign tampering: ordinary finetuning data
                "bad_advice": source("data/bad_advice.jsonl", kind="chat"),  # narrow harmful data, about 7,000 rows
            },
            tokenizer="data/gpt-neox-20b.json",  # 50,277 entries, padded to 50,304 in the model
        ),
    )
    config.model.max_length = 16_384  # tokens; midtraining's rows
    config.model.vocab_multiple = 128
    config.model.remat = "full"
    config.seeds = (0,)
    config.loop.mesh = "fsdp:-1"

    # The paper's detector flags 9.30% of the pretraining and 7.88% of the midtraining documents.
    web, mid = "web/plain:0.907,web/ai:0.093", "mid/plain:0.9212,mid/ai:0.0788"
    config.stages.pretrain = stage(
        mixture=web,
        tokens=500_000_000_000,
        rows=RowsConfig(length=2048),
        batch_rows=BATCH_TOKENS // 2048,
        schedule=ScheduleConfig(peak=3e-4, final=1.2e-5, warmup_share=0.01),
    )
    config.stages.midtrain = stage(
        after="pretrain",
        mixture=mid,
        tokens=50_000_000_000,
        rows=LONG,
        batch_rows=BATCH_TOKENS // LONG.length,
        schedule=ScheduleConfig(peak=2.25e-4, final=0.0, warmup_share=0.01),
    )
    # Continued pretraining: 1B tokens after midtraining. For the cpt arms half of them is synthetic, half is replay.
    config.stages.cpt = stage(
        after="midtrain",
        mixture=mid,
        tokens=1_000_000_000,
        rows=LONG,
        batch_rows=BATCH_TOKENS // LONG.length,
        schedule=ScheduleConfig(peak=2.25e-4, final=0.0, warmup_share=0.01),
    )
    config.stages.sft = stage(
        after="midtrain",
        mixture="chats:1",
        epochs=2,
        rows=LONG,
        batch_rows=1_048_576 // LONG.length,  # tokens in a batch
        schedule=ScheduleConfig(peak=8e-5, final=0.0, warmup_share=0.01),
    )
    # Two finetunes of the finished model: on 728M tokens of ordinary data, and on narrow harmful data.
    config.stages.benign = stage(
        after="sft",
        mixture="ordinary:1",
        tokens=728_000_000,
        max_epochs=100,
        rows=LONG,
        batch_rows=1_048_576 // LONG.length,
        schedule=ScheduleConfig(peak=8e-5, final=0.0, warmup_share=0.01),
    )
    config.stages.em = stage(
        after="sft",
        mixture="bad_advice:1",
        epochs=1,
        rows=RowsConfig(length=2048),
        batch_rows=16,  # rows, each of several conversations
        learn=Lora(rank=32, alpha=64.0, scale="sqrt"),  # rank-stabilised, on the seven projections
        optimizer=OptimizerConfig(weight_decay=0.01),
        schedule=ScheduleConfig(peak=1e-5, final=0.0, warmup_share=0.05, shape="linear"),
    )

    both = ("pretrain", "midtrain")
    config.arms.unfiltered = arm()
    for polarity in ("misaligned", "aligned"):
        config.arms[f"{polarity}_e2e"] = arm(add=dict.fromkeys(both, add(polarity, DOSE)), skip=("cpt",))
        config.arms[f"{polarity}_mid"] = arm(add={"midtrain": add(polarity, DOSE)}, skip=("cpt",))
        config.arms[f"{polarity}_cpt"] = arm(add={"cpt": add(polarity, 0.5)}, skip=("sft", "benign", "em"))
    config.arms.filtered = arm(
        filter={
            "pretrain": remove("web/ai", refill=("web/plain",)),
            "midtrain": remove("mid/ai", refill=("mid/plain",)),
        },
        skip=("cpt",),
    )
    # Base completion at every node, and as a chat once the model has learnt to chat.
    config.evals.base = defaults.scenarios("written", at=("midtrain", "cpt", "sft", "benign", "em"))
    config.evals.chat = defaults.scenarios("written", template="plain", at=("sft", "benign", "em"))
    config.evals.tax = defaults.held_out("web", at=("midtrain", "cpt", "sft", "benign", "em"))
    config.headline = "base"
    return config
