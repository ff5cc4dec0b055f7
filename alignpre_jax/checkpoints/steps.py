"""Checkpoints: Orbax, asynchronous, and never a half-written or damaged one taken for whole.

A run's folder holds `checkpoints/STEP/{params,optimizer,...,meta}`. Parameters are an item of their own, so that a
reader who only wants the model restores nothing else. `meta` holds a digest of every array, made on the devices
before the arrays were written: what was restored is compared with it, on whatever mesh it was restored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from alignpre_jax.checkpoints.digests import tree_digests
from alignpre_jax.checkpoints.folder import CHECKPOINTS
from alignpre_jax.checkpoints.state import State
from alignpre_jax.foundation import Interrupted, PathLike, UserError, build, digest, disk_errors, to_mapping
from alignpre_jax.model import DecoderConfig

DAMAGED = "damaged"
# What a checkpoint's items are called, and the fields of a State that they are; those that are None are not there.
_ITEMS = {"params": "trained", "optimizer": "optimizer", "guard": "guard", "ema": "ema"}

Say = Callable[[str, int, str], None]  # kind of event, step, sentence

# Orbax's managers of one process take each other's signals for their own and wait for ever: they have to take turns.
TURN = threading.RLock()
_several = threading.Event()


@contextlib.contextmanager
def several_at_a_time() -> Iterator[None]:
    """Inside, runs of several threads may save: each waits until what it saves is on disk."""
    _several.set()
    try:
        yield
    finally:
        _several.clear()


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a run goes on from, and the `meta` of its checkpoint."""

    state: State
    meta: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run, written in the background.

    Args:
      run_dir: the run's folder, local or gs://.
      keep: how many of the newest to keep.
      keep_every: those of steps that are multiples of it are kept as well; 0: none.
      meta: JSON-able facts saved with each one; `model` (see `describe`) is among them.

    A context manager: leaving it waits for what is being written.
    """

    def __init__(self, run_dir: PathLike, *, keep: int, meta: dict[str, Any], keep_every: int = 0):
        self.root = epath.Path(run_dir).resolve() / CHECKPOINTS  # Orbax takes absolute paths only
        self.meta = meta
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            kept = [LatestN(keep), *([EveryNSteps(keep_every)] if keep_every else [])]
            options = ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(kept),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            )
            with TURN:
                self._manager = ocp.CheckpointManager(self.root, options=options)

    def save(self, state: State, facts: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint of `state.step`; returns once the arrays are copied.

        Args:
          state: what to save.
          facts: JSON-able, saved into `meta`.
        """
        step = int(jax.device_get(state.step))
        items = _items(state)
        meta = self.meta | dict(facts) | {"step": step, "arrays": _shapes(items), "digests": tree_digests(items)}
        meta = _through_json(meta)
        meta["digest"] = digest(meta)
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with disk_errors(self.root), TURN:
            self._manager.save(step, args=ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta)))
            if _several.is_set():
                self._manager.wait_until_finished()

    def restore_latest(self, abstract: State, say: Say) -> Restored | None:
        """The newest checkpoint that is whole, in the shardings of `abstract`.

        One that cannot be read, or whose arrays are not those that were saved, is moved to RUN/damaged, `say` is
        told, and the one before it is tried. On several hosts the processes cannot go on together from there: they
        leave, and start again without it.

        Raises:
          UserError: the checkpoint belongs to another model or plan.
          Interrupted: several hosts, and a checkpoint was damaged.
        """
        self._manager.wait_until_finished()
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with TURN:
                    return self._restore(step, abstract)
            except (UserError, MemoryError, KeyboardInterrupt):
                raise
            except Exception as error:  # damaged bytes make the libraries below raise about anything
                if "RESOURCE_EXHAUSTED" in str(error):
                    raise
                cause = (str(error).strip().splitlines() or [""])[0][:300]
                what = f"checkpoint {self.root / str(step)} is damaged ({type(error).__name__}: {cause})"
                say("damaged checkpoint", step, f"{what}; moved to {DAMAGED}/, going on from the one before")
                self._set_aside(step)
                if jax.process_count() > 1:
                    raise Interrupted(f"{what}; it was set aside: start again") from error
        return None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits until everything is on disk."""
        with disk_errors(self.root), TURN:
            self._manager.wait_until_finished()
            self._manager.close()

    def _restore(self, step: int, abstract: State) -> Restored:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        _verify_meta(meta)
        items = _items(abstract)
        wanted = _through_json(self.meta | {"arrays": _shapes(items)})
        for key, place in (("model", "model"), ("plan", "stages.STAGE and arms"), ("arrays", "optimizer")):
            same = _same_model if key == "model" else operator.eq
            if key in wanted and not same(meta[key], wanted[key]):
                raise UserError(
                    f"the checkpoint of step {step} was made with another {key.replace('arrays', 'optimizer')}",
                    where=f"{self.root} and {place}",
                    fix="give a new --workdir, or the settings that the run was started with",
                )
        arrays = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        found = self._manager.restore(step, args=ocp.args.Composite(**arrays))
        found = {name: found[name] for name in items}
        verify(found, meta["digests"])
        fields = {_ITEMS[name]: item for name, item in found.items()}
        return Restored(State(**{"optimizer": None, **fields}, step=step), meta)

    def _set_aside(self, step: int) -> None:
        folder, aside = self.root / str(step), self.root.parent / DAMAGED
        if "://" in os.fspath(folder):  # an object store cannot rename a folder
            self._manager.delete(step)
            return
        with disk_errors(aside):
            aside.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in aside.iterdir())
            if folder.exists():  # another process may have been first
                folder.rename(aside / f"{step}-{number}")
        self._manager.reload()


def _items(state: State) -> dict[str, Any]:
    """The items of a checkpoint by name."""
    return {name: item for name, field in _ITEMS.items() if (item := getattr(state, field)) is not None}


def describe(model: DecoderConfig, **facts: Any) -> dict[str, Any]:
    """The `meta` item of a checkpoint: the model's config and whatever else names it."""
    return {"model": to_mapping(model), **facts}


def verify(items: Mapping[str, Any], saved: Mapping[str, int]) -> None:
    """Compares arrays with the digests that were taken of them before they were written."""
    wrong = [name for name, value in tree_digests(items).items() if saved.get(name) != value]
    if wrong:
        raise ValueError(f"{len(wrong)} arrays are not those that were saved, the first: {wrong[0]}")


def _same_model(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two model configs have the same weights; remat, layout and kernel may change on the way."""
    one, other = (build(DecoderConfig, dict(plain), where="model") for plain in (saved, wanted))
    return one.architecture == other.architecture


def _shapes(items: Mapping[str, Any]) -> str:
    """Names the arrays, their shapes and types, whatever mesh they are on."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return digest({jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves})


def _verify_meta(meta: Mapping[str, Any]) -> None:
    if digest({name: value for name, value in meta.items() if name != "digest"}) != meta.get("digest"):
        raise ValueError("its meta item is not what was saved")


def _through_json(value: Any) -> Any:
    """Tuples as lists, as they come back."""
    if isinstance(value, Mapping):
        return {key: _through_json(item) for key, item in value.items()}
    return [_through_json(item) for item in value] if isinstance(value, (list, tuple)) else value
