"""ConfigDicts with every key at its default, for the files in configs/ to start from.

Every field of the dataclasses is a key, so every field can be set on the command line.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from alignpre_jax.evals import EvalConfig
from alignpre_jax.foundation import to_mapping
from alignpre_jax.model import get_preset
from alignpre_jax.study.config import ArmConfig, DataConfig, SourceConfig, StageConfig
from alignpre_jax.training import LoopConfig, OptimizerConfig


def study(name: str, model: str, data: ConfigDict) -> ConfigDict:
    """A study of a model preset on some data, still without stages and arms."""
    return ConfigDict(
        {
            "name": name,
            "model": to_mapping(get_preset(model)),
            "data": data,
            "stages": {},
            "arms": {},
            "seeds": (0, 1, 2),
            "vmap_seeds": 1,
            "init_from": "",
            "baseline": "unfiltered",
            "optimizer": to_mapping(OptimizerConfig()),
            "training": to_mapping(LoopConfig()),
            "evals": to_mapping(EvalConfig()),
        }
    )


def data(sources: dict[str, ConfigDict], **values: Any) -> ConfigDict:
    """The text of a study; see `DataConfig`."""
    plain = {name: SourceConfig(**each.to_dict()) for name, each in sources.items()}
    return ConfigDict(to_mapping(DataConfig(sources=plain, **values)))


def source(*inputs: str, **values: Any) -> ConfigDict:
    """A named set of documents; see `SourceConfig`."""
    return ConfigDict(to_mapping(SourceConfig(inputs=inputs, **values)))


def stage(**values: Any) -> ConfigDict:
    """One training run; see `StageConfig`."""
    return ConfigDict(to_mapping(StageConfig(**values)))


def arm(*stages: str, **values: Any) -> ConfigDict:
    """What one arm does; see `ArmConfig`."""
    return ConfigDict(to_mapping(ArmConfig(stages=stages, **values)))
