import dataclasses

import pytest

from alignpre_jax.model import get_preset
from alignpre_jax.objectives import Mle
from alignpre_jax.planner import StageWork
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig

ROWS, LENGTH = 8, 256


@pytest.fixture(scope="session")
def make_work():
    """A function that makes a stage for a tiny decoder; keyword arguments replace fields of the model."""

    def make(name: str = "pretrain", tokens: int = 100 * ROWS * LENGTH, runs: int = 3, **model) -> StageWork:
        config = dataclasses.replace(
            get_preset("llama2_7b"),
            vocab_size=1000, layers=2, width=256, heads=2, kv_heads=1, head_dim=128, mlp_width=512, max_length=LENGTH,
        )  # fmt: skip
        step = StepConfig(
            model=dataclasses.replace(config, **model),
            objective=Mle(chunk_bytes=512 << 10),
            optimizer=OptimizerConfig(),
            schedule=ScheduleConfig(),
            steps=tokens // (ROWS * LENGTH),
            sources=2,
        )
        return StageWork(name, step, "fsdp:-1", ROWS, LENGTH, tokens, runs)

    return make


@pytest.fixture(scope="session")
def plan_cache(tmp_path_factory):
    """A folder for what the tests compile."""
    return tmp_path_factory.mktemp("plans") / "a name of 'words'"
