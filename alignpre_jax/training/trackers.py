"""This module sends metrics to TensorBoard and Weights & Biases as well, each imported only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epath

from alignpre_jax.foundation import PathLike, UserError, digest, flatten


class Tracker(NamedTuple):
    """A `Tracker` is written to by `write(step, figures)`, and closed by `close()` at the end."""

    write: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def open_tracker(spec: str, run_dir: PathLike, name: str, config: Mapping[str, Any], start: int) -> Tracker:
    """Opens "tensorboard" (into RUN_DIR/tensorboard) or "wandb:PROJECT".

    Args:
      spec: see `LoopConfig.trackers`.
      run_dir: the run's folder; a run that goes on is the same run in W&B.
      name: the run's name.
      config: the settings that are shown with the run.
      start: how many steps are done; what was tracked of later steps is replaced.

    Raises:
      UserError: the package is not installed.
    """
    kind, _, project = spec.partition(":")
    if kind == "tensorboard":
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise _missing("tensorboardX", "tensorboard") from None
        folder = os.fspath(epath.Path(run_dir) / "tensorboard")
        writer = SummaryWriter(folder, purge_step=start + 1 if start else None)

        def add(step: int, figures: Mapping[str, float]) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)

        return Tracker(add, writer.close)
    try:
        import wandb
    except ImportError:
        raise _missing("wandb", "wandb") from None
    identity = digest(os.fspath(epath.Path(run_dir).resolve()))
    run = wandb.init(project=project, name=name, id=identity, resume="allow", config=dict(config))
    return Tracker(lambda step, figures: run.log(dict(figures), step=step), run.finish)


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a metrics line; nested ones have names such as "source_loss/web"."""
    flat = flatten({key: value for key, value in line.items() if key != "step"})
    numbers = {key: value for key, value in flat.items() if isinstance(value, (int, float))}
    return {key.replace("source_loss.", "source_loss/").replace("stratum_loss.", "stratum_loss/"): float(value)
            for key, value in numbers.items()}  # fmt: skip


def _missing(package: str, extra: str) -> UserError:
    return UserError(
        f"the package {package} is not installed", where="loop.trackers", fix=f"pip install 'alignpre_jax[{extra}]'"
    )
