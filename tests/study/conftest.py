import pytest
from config_files import load_config

from alignpre_jax.foundation import build
from alignpre_jax.study import StudyConfig


@pytest.fixture(scope="session")
def small_config() -> StudyConfig:
    """The config of the small world, as the file has it."""
    return build(StudyConfig, load_config("small_world").to_dict())
