"""A sweep is a list of points, which say what values some config keys take together.

A config file may define `sweep()`, which returns points; each point is a study of its own:

    def sweep():
        doses = values("arms.aligned.add.midtrain.dose", (0.01, 0.1))
        return product(doses, values("stages.midtrain.optimizer.weight_decay", (0.0, 0.1)))
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alignpre_jax.foundation import UserError, digest, suggest

Point = dict[str, Any]  # config key, as after --config. -> value


def values(key: str, choices: Iterable[Any]) -> list[Point]:
    """One point for each of the values of a key."""
    return [{key: choice} for choice in choices]


def product(*sweeps: Sequence[Point]) -> list[Point]:
    """Every point of the first sweep with every point of the second, and so on; the last sweep changes fastest."""
    return [_merge(points) for points in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Point]) -> list[Point]:
    """The first points of all sweeps together as one point, then the second points, and so on.

    Raises:
      UserError: the sweeps have different lengths.
    """
    if len({len(sweep) for sweep in sweeps}) > 1:
        lengths = ", ".join(str(len(sweep)) for sweep in sweeps)
        raise UserError(f"sweeps of {lengths} points cannot be zipped", where="sweep()", fix="give them equal lengths")
    return [_merge(points) for points in zip(*sweeps, strict=True)]


def chain(*sweeps: Sequence[Point]) -> list[Point]:
    """The points of the first sweep, then those of the second, and so on."""
    return [point for sweep in sweeps for point in sweep]


def parse_sweep(text: str) -> list[Point]:
    """Reads a sweep from the command line: "arms.aligned.add.midtrain.dose=0.01,0.1; seeds=(0,),(1,)".

    The sweep is the product of its parts.

    Raises:
      UserError: a part is not KEY=VALUE,VALUE,...
    """
    sweeps = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, choices = part.partition("=")
        if not (equals and key.strip() and choices.strip()):
            raise UserError(
                f"{part!r} is not KEY=VALUE,VALUE",
                where="--sweep",
                fix="e.g. --sweep=stages.midtrain.schedule.peak=1e-3,2e-3",
            )
        sweeps.append(values(key.strip().removeprefix("config."), _literals(choices)))
    return product(*sweeps)


def load_sweep(config_flag: str) -> list[Point]:
    """The points of the `sweep()` in the file that --config=FILE[:ARG] names; one empty point where there is none."""
    path = Path(config_flag.partition(":")[0])
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if not config_flag or spec is None or spec.loader is None or not path.exists():
        return [{}]
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # a config file is a program that the user wrote; --config runs it as well
    sweep: Callable[[], list[Point]] | None = getattr(module, "sweep", None)
    return sweep() if sweep else [{}]


def apply(config: ConfigDict, point: Point) -> ConfigDict:
    """A copy of the config with the point's values.

    Raises:
      UserError: the config does not have one of the keys.
    """
    made = ConfigDict(config.copy_and_resolve_references()).unlock()
    for key, value in point.items():
        *parents, last = key.split(".")
        node: Any = made
        for name in parents:
            node = node[_known(name, node, key)]
        _known(last, node, key)
        with node.ignore_type():
            node[last] = value
    return made


def point_name(point: Point) -> str:
    """The name of a point's folder: readable, stable, and different for different points; "" for the empty point."""
    if not point:
        return ""
    words = "-".join(f"{key.split('.')[-1]}-{value}" for key, value in sorted(point.items()))
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', words).strip('-')[:40]}-{digest(point, 6)}"


def _known(name: str, node: Any, key: str) -> str:
    known = node.keys() if isinstance(node, ConfigDict) else ()
    if name not in known:
        raise UserError(f"no config key {key!r}", where="sweep", fix=suggest(name, known))
    return name


def _merge(points: Iterable[Point]) -> Point:
    merged: Point = {}
    for point in points:
        for key in merged.keys() & point.keys():
            raise UserError(f"{key!r} is swept twice", where="sweep()", fix="name a key in one sweep, or use chain()")
        merged |= point
    return merged


def _literals(text: str) -> list[Any]:
    """Reads comma-separated values; a value that is not a Python literal is a string."""
    try:
        found = ast.literal_eval(f"[{text},]")
    except (SyntaxError, ValueError):
        found = [_literal(word.strip()) for word in text.split(",")]
    return list(found)


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return word
