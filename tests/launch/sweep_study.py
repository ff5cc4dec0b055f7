"""A config of the tiny study with four arms and a sweep; its background lies in $SWEEP_CORPUS."""

import os

from config_files import load_config

from alignpre_jax.launch import values


def get_config():
    config = load_config("small_world")
    del config.arms.aligned_zero
    config.seeds = (0, 1)
    config.model.update({"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "mlp_width": 64})
    config.model.vocab_size = 512
    config.stages.pretrain.tokens = 20480
    config.stages.midtrain.tokens = 10240
    config.data.sources.web.inputs = (os.environ["SWEEP_CORPUS"], "world:mixed")
    config.data.world.update({"documents": 60, "mixed_documents": 60, "items_per_split": 6, "control_items": 6})
    config.data.sources.web.held_out_share = 0.1
    config.loop.checkpoint_every = 5
    return config


def sweep():
    return values("arms.aligned.add.midtrain.dose", (0.25, 0.5))
