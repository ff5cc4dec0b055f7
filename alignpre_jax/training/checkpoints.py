"""Checkpoints: Orbax, asynchronous, and never half taken for whole.

A run's folder holds `checkpoints/STEP/{params,optimizer,meta}`. Parameters are an item of
their own, so that a reader who only wants the model restores nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.sharding import Mesh

from alignpre_jax.foundation import PathLike, UserError, build, disk_errors, to_mapping
from alignpre_jax.model import DecoderConfig, init_params, make_mesh, param_shardings

FOLDER = "checkpoints"
TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a run goes on from: `step` updates are in `params` and `optimizer`."""

    step: int
    params: Any
    optimizer: Any


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, written in the background.

    Args:
      run_dir: the run's folder, local or gs://.
      keep: how many to keep.
      meta: JSON-able facts saved with each one; `model` (see `describe`) is among them.

    A context manager: leaving it waits for what is being written.
    """

    def __init__(self, run_dir: PathLike, *, keep: int, meta: dict[str, Any]):
        self.root = epath.Path(run_dir).resolve() / FOLDER  # Orbax takes absolute paths only
        self.meta = meta
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.root, options=options)

    def save(self, step: int, params: Any, optimizer: Any) -> None:
        """Starts writing a checkpoint that contains `step` updates; returns once the arrays are copied."""
        with disk_errors(self.root):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(params),
                    optimizer=ocp.args.StandardSave(optimizer),
                    meta=ocp.args.JsonSave(self.meta | {"step": step}),
                ),
            )

    def restore_latest(self, params: Any, optimizer: Any) -> Restored | None:
        """The newest readable checkpoint, in the shardings of the given (abstract) trees.

        An unreadable one is reported and removed, and the one before it is tried.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        params=ocp.args.StandardRestore(params), optimizer=ocp.args.StandardRestore(optimizer)
                    ),
                )
            except (OSError, ValueError, KeyError, TypeError) as error:
                logging.error("checkpoint %s of step %d cannot be read and is removed: %s", self.root, step, error)
                self._manager.delete(step)
                continue
            return Restored(step, found["params"], found["optimizer"])
        return None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits until everything is on disk."""
        with disk_errors(self.root):
            self._manager.wait_until_finished()
            self._manager.close()


def describe(model: DecoderConfig, **facts: Any) -> dict[str, Any]:
    """The `meta` item of a checkpoint: the model's config and whatever else names it."""
    return {"model": to_mapping(model), **facts}


def load_params(
    path: PathLike, step: int | None = None, *, mesh: Mesh | None = None
) -> tuple[Any, DecoderConfig, epath.Path]:
    """Restores the parameters alone: (params, model config, path of the tokenizer).

    Args:
      path: a run's folder.
      step: which checkpoint; the newest when None.
      mesh: the devices that the parameters are spread over; the first device alone when None.
    """
    run_dir = epath.Path(path).resolve()
    root = run_dir / FOLDER
    steps = sorted(int(p.name) for p in root.iterdir() if p.name.isdigit()) if root.exists() else []
    if not steps:
        raise UserError(
            f"no checkpoint in {path}", where="--checkpoint", fix="give a run's folder, WORKDIR/train/SEED/STAGE"
        )
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {path}", where="--step", fix=f"there are: {steps}")
    folder = root / str(steps[-1] if step is None else step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(folder / "meta")
    config = build(DecoderConfig, meta["model"], where=f"{folder}/meta: model")
    devices = mesh or make_mesh({"fsdp": 1}, jax.devices()[:1])
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(functools.partial(init_params, config), 0),
        param_shardings(config, devices),
    )
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(folder / "params", abstract)
    return params, config, run_dir / TOKENIZER
