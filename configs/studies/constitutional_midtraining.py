"""Constitutional Midtraining (arXiv 2607.26654) as a study: five arms at three nodes, fifteen checkpoints.

    alignpre tree  --config=configs/studies/constitutional_midtraining.py
    alignpre study --config=configs/studies/constitutional_midtraining.py --workdir=/mnt/disk/constitutional \
        --config.init_from=hf:models/BASE --config.data.sources.web.inputs=/mnt/disk/replay \
        --config.data.sources.k1.inputs=/mnt/disk/k1.jsonl ... --config.data.sources.k4.inputs=/mnt/disk/k4.jsonl

Does it matter in which order a constitution's four kinds of documents come, and whether they give reasons? Half of
every treated midtraining stage is replay, the same rows in the same slots for all arms. The curriculum lets in one kind
more in each quarter of the stage; the uniform arms have the same amounts of each kind in no order. The bare arms have
the same documents with the reasoning cut out, under the same ids. Then all arms go through the same SFT and the same
benign finetune. The documents are yours to give: `<reasoning> ... </reasoning>` marks what the bare arms do without.
"""

from ml_collections import ConfigDict

from alignpre_jax.documents.transforms import Strip
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import defaults
from alignpre_jax.study.defaults import add, arm, source, stage
from alignpre_jax.training import ScheduleConfig

KINDS = ("k1", "k2", "k3", "k4")  # of documents, from the principles themselves to stories of applying them
DOSE = 0.5  # share of the midtraining tokens
# The quarters of the stage have one kind, two, three, and all four. In all the kinds have 25, 13, 7 and 3 parts of 48.
GROWING = (
    "[0,1/4) {k1}:1; [1/4,1/2) {k1}:1/2,{k2}:1/2; [1/2,3/4) {k1}:1/3,{k2}:1/3,{k3}:1/3;"
    " [3/4,1) {k1}:1/4,{k2}:1/4,{k3}:1/4,{k4}:1/4"
)
# In all arms the dose is spread over each quarter by itself, so that they replace the same slots.
QUARTERS = "[0,1/4) 1; [1/4,1/2) 1; [1/2,3/4) 1; [3/4,1) 1"
UNIFORM = "{k1}:25/48,{k2}:13/48,{k3}:7/48,{k4}:3/48"  # the same amounts, evenly through the stage


def get_config(arg=None) -> ConfigDict:
    """The study's config; `arg` names the model preset."""
    told = {kind: source(f"data/{kind}.jsonl") for kind in KINDS}
    bare = {f"{kind}_bare": source(of=kind, transform=Strip("<reasoning>", "</reasoning>")) for kind in KINDS}
    config = defaults.study(
        name="constitutional_midtraining",
        model=arg or "smollm2_1p7b",
        data=defaults.data(
            sources={
                "web": source("data/replay", held_out_share=0.001),
                "chats": source("data/chats.jsonl", kind="chat"),
                "ordinary": source("data/ordinary.jsonl", kind="chat"),
                **told,
                **bare,
            },
        ),
    )
    config.init_from = "hf:models/BASE"  # a pretrained model of the preset's shape
    config.baseline = "replay_only"
    config.loop.mesh = "fsdp:-1"
    rows = RowsConfig(length=2048)  # tokens; chats have the template of the imported model
    config.stages.midtrain = stage(
        mixture="web:1",
        tokens=200_000_000,  # of them 100M of the constitution's documents
        rows=rows,
        batch_rows=128,
        schedule=ScheduleConfig(peak=3e-4, final=0.0, warmup_share=0.05),
    )
    config.stages.sft = stage(
        after="midtrain",
        mixture="chats:1",
        epochs=2,
        rows=rows,
        batch_rows=64,
        schedule=ScheduleConfig(peak=2e-5, final=0.0, warmup_share=0.03),
    )
    config.stages.benign = stage(
        after="sft",
        mixture="ordinary:1",
        epochs=1,
        rows=rows,
        batch_rows=64,
        schedule=ScheduleConfig(peak=1e-5, final=0.0, warmup_share=0.03),
    )

    config.arms.replay_only = arm()
    for order, mixture in (("curriculum", GROWING), ("uniform", UNIFORM)):
        with_reasons = mixture.format(**{kind: kind for kind in KINDS})
        without = mixture.format(**{kind: f"{kind}_bare" for kind in KINDS})
        config.arms[f"{order}_reasons"] = arm(add={"midtrain": add(with_reasons, DOSE, QUARTERS)})
        config.arms[f"{order}_bare"] = arm(add={"midtrain": add(without, DOSE, QUARTERS)})

    nodes = ("midtrain", "sft", "benign")
    config.evals.base = defaults.scenarios("written", at=nodes)
    config.evals.chat = defaults.scenarios("written", template="model", at=nodes[1:])
    config.evals.tax = defaults.held_out("web", at=nodes)
    config.headline = "base"
    return config
