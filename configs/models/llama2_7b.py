"""Llama-2-7B on 256 v5e chips, with 4 rows of 2,048 tokens a chip and parameters split over all chips.

    alignpre plan --config=configs/models/llama2_7b.py --topology=v5e:16x16 --decode=64x2048

This is a shape to plan, compare and search with; its data are yours to give. For the backward pass a block keeps its
gate projection and its queries: per byte nothing saves more FLOPs, and the step stays below 15 GiB.
"""

from ml_collections import ConfigDict

from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import defaults
from alignpre_jax.training import ScheduleConfig

CHIPS, ROWS, LENGTH = 256, 4, 2048


def get_config() -> ConfigDict:
    """The study's config: one arm of one stage."""
    config = defaults.study(
        name="llama2_7b",
        model="llama2_7b",
        data=defaults.data(sources={"web": defaults.source("data/web")}, tokenizer="data/llama2.json"),
    )
    config.model.max_length = LENGTH
    config.model.remat = "save:gate,q"
    config.loop.mesh = "fsdp:-1"
    config.stages.pretrain = defaults.stage(
        tokens=100_000_000_000,
        mixture="web:1",
        rows=RowsConfig(length=LENGTH),
        batch_rows=CHIPS * ROWS,
        schedule=ScheduleConfig(peak=3e-4, final=3e-5, warmup_share=0.01),
    )
    config.arms.unfiltered = defaults.arm()
    config.evals.choices = defaults.scenarios("written")
    return config
