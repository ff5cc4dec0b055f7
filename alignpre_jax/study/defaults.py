"""These functions make ConfigDicts with every key at its default; the files in configs/ start from them.

Every field of the dataclasses is a key, so that every field can be set on the command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from alignpre_jax.evals import Capabilities, HeldOut, Scenarios
from alignpre_jax.foundation import to_mapping
from alignpre_jax.model import get_preset
from alignpre_jax.study.config import Add, ArmConfig, Filter, StageConfig
from alignpre_jax.study.sources import DataConfig, SourceConfig
from alignpre_jax.training import LoopConfig


def study(name: str, model: str, data: ConfigDict) -> ConfigDict:
    """Makes the config of a study of a model preset on some data, still without stages, arms and evals."""
    return ConfigDict(
        {
            "name": name,
            "model": to_mapping(get_preset(model)),
            "data": data,
            "stages": {},
            "arms": {},
            "evals": {},
            "headline": "",
            "node": "",
            "baseline": "unfiltered",
            "seeds": (0, 1, 2),
            "vmap_seeds": 1,
            "init_from": "",
            "loop": to_mapping(LoopConfig()),
        }
    )


def data(sources: Mapping[str, ConfigDict], **values: Any) -> ConfigDict:
    """Makes the config of a study's text; see `DataConfig`."""
    given = {name: value if isinstance(value, ConfigDict) else to_mapping(value) for name, value in values.items()}
    return ConfigDict(_defaults(DataConfig, "sources") | {"sources": dict(sources)} | given)


def source(*inputs: str, **values: Any) -> ConfigDict:
    """Makes the config of a source, a named set of documents; see `SourceConfig`."""
    return ConfigDict(to_mapping(SourceConfig(inputs=inputs, **values)))


def stage(**values: Any) -> ConfigDict:
    """Makes the config of a stage, a node of the tree; see `StageConfig`."""
    return ConfigDict(to_mapping(StageConfig(**values)))


def add(mixture: str, dose: float, schedule: str = "") -> Add:
    """Says what an arm adds in a stage; see `Add`."""
    return Add(mixture, dose, schedule)


def remove(*strata: str, refill: tuple[str, ...], **values: Any) -> Filter:
    """Says what an arm filters in a stage; see `Filter`."""
    return Filter(strata, refill, **values)


def arm(
    add: Mapping[str, Add] | None = None, filter: Mapping[str, Filter] | None = None, skip: tuple[str, ...] = ()
) -> ConfigDict:
    """Makes the config of an arm, which says by stage what the arm changes; see `ArmConfig`."""
    return ConfigDict(to_mapping(ArmConfig(add or {}, filter or {}, skip)))


def scenarios(suite: str = "small_world", **values: Any) -> ConfigDict:
    """Makes the config of an eval that puts a suite's scenarios; see `evals.Scenarios`."""
    return ConfigDict(to_mapping(Scenarios(suite=suite, **values)))


def held_out(source: str, **values: Any) -> ConfigDict:
    """Makes the config of an eval of the loss on held-out documents; see `evals.HeldOut`."""
    return ConfigDict(to_mapping(HeldOut(source=source, **values)))


def capabilities(*tasks: str, **values: Any) -> ConfigDict:
    """Makes the config of an eval of capability tasks; see `evals.Capabilities`."""
    return ConfigDict(to_mapping(Capabilities(tasks=tasks, **values)))


def _defaults(cls: type, *needed: str) -> dict[str, Any]:
    """The default values of a config dataclass, leaving out the fields `needed`, which have no default."""
    found = {}
    for field in dataclasses.fields(cls):
        if field.name in needed:
            continue
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        found[field.name] = to_mapping(made)
    return found
