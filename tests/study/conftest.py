import importlib.util
from pathlib import Path

import pytest

from alignpre_jax.foundation import build
from alignpre_jax.study import StudyConfig

ROOT = Path(__file__).parents[2]


def load_config_file(path: str):
    spec = importlib.util.spec_from_file_location("config_file", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture(scope="session")
def small_config() -> StudyConfig:
    """The config of the small world, as the file has it."""
    return build(StudyConfig, load_config_file("configs/studies/small_world.py").to_dict())
