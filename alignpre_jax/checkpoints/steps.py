"""Orbax writes checkpoints in the background, and one that is half-written or damaged is never taken for whole.

A run's folder holds `checkpoints/STEP/{params,optimizer,...,meta}`. Parameters are an item of their own, so that a
reader who only wants the model restores nothing else. `meta` holds a digest of every array, made on the devices
before the arrays were written: what was restored is compared with it, on whatever mesh it was restored. It also says
what the run was made with, and a run does not go on if its settings or rows have changed since.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    EveryNSteps,
    LatestN,
    PreservationContext,
    PreservationPolicy,
)

from alignpre_jax.checkpoints.damage import DamagedError, read
from alignpre_jax.checkpoints.digests import tree_digests
from alignpre_jax.checkpoints.folder import CHECKPOINTS, DAMAGED, passed_over
from alignpre_jax.checkpoints.state import State
from alignpre_jax.foundation import (
    Interrupted,
    PathLike,
    UserError,
    difference,
    digest,
    disk_errors,
    to_mapping,
    write_json,
)
from alignpre_jax.model import DecoderConfig

MADE = "made"  # the key in `meta` of all that decides what the run learns
# The names of a checkpoint's items, and the fields of a State that they hold; a field that is None has no item.
_ITEMS = {"params": "trained", "optimizer": "optimizer", "guard": "guard", "ema": "ema"}
_SHOWN = 12  # lines of a difference that are shown

Say = Callable[[str, int, str], None]  # kind of event, step, sentence

# Orbax's managers of one process take each other's signals for their own and wait for ever: they have to take turns.
TURN = threading.RLock()
_several = threading.Event()


@contextlib.contextmanager
def several_at_a_time() -> Iterator[None]:
    """Lets runs in several threads save inside this context: each waits until what it saves is on disk."""
    _several.set()
    try:
        yield
    finally:
        _several.clear()


@dataclasses.dataclass(frozen=True)
class Restored:
    """A `Restored` is the state that a run goes on from, and the `meta` of its checkpoint."""

    state: State
    meta: Mapping[str, Any]


class Checkpoints:
    """`Checkpoints` are the checkpoints of one run, written in the background.

    Args:
      run_dir: the run's folder, local or gs://.
      keep: how many of the newest checkpoints to keep.
      keep_every: checkpoints of steps that are multiples of it are kept as well; 0: none are.
      meta: JSON-able facts that are saved with each checkpoint. Among them are `model` (see `describe`) and `made`,
        which holds by name what decides what the run learns; a checkpoint that was made otherwise is refused.

    It is a context manager: leaving it waits for what is being written.
    """

    def __init__(self, run_dir: PathLike, *, keep: int, meta: dict[str, Any], keep_every: int = 0):
        self.root = epath.Path(run_dir).resolve() / CHECKPOINTS  # Orbax takes absolute paths only
        self.meta = meta
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            kept = [LatestN(keep), *([EveryNSteps(keep_every)] if keep_every else [])]
            options = ocp.CheckpointManagerOptions(
                preservation_policy=_WholeOnes(AnyPreservationPolicy(kept), self.root.parent),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            )
            with TURN:
                self._manager = ocp.CheckpointManager(self.root, options=options)

    def save(self, state: State, facts: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint of `state.step`; returns once the arrays are copied.

        Args:
          state: what to save.
          facts: JSON-able facts that are saved in `meta`, beside those that are the same for all checkpoints.
        """
        step = int(jax.device_get(state.step))
        items = _items(state)
        meta = self.meta | dict(facts) | {"step": step, "items": [*items], "arrays": _shapes(items)}
        meta = through_json(meta | {"digests": tree_digests(items)})
        meta["digest"] = digest(meta)
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with disk_errors(self.root), TURN:
            if step in passed_over(self.root.parent):  # a damaged one lies where this one is to be saved
                self._manager.delete(step)
                self._note(step).unlink(missing_ok=True)
            is_new = step not in self._manager.all_steps()  # also if a later one, which is damaged, is passed over
            self._manager.save(step, args=ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta)), force=is_new)
            if _several.is_set():
                self._manager.wait_until_finished()

    def restore_latest(self, abstract: State, say: Say) -> Restored | None:
        """Restores the newest checkpoint that is whole, in the shardings of `abstract`; None if none was ever saved.

        A damaged checkpoint (see `damage`) is set aside once an older one was found whole, and `say` is told. On
        several hosts the processes cannot go on together from there: the checkpoint is set aside at once if there is an
        older one, and they leave, to be started again without it. Nothing is deleted: the checkpoint is moved to
        RUN/damaged or, in an object store, left where it is and passed over from then on.

        Raises:
          UserError: the checkpoint was made otherwise than this run is; it could not be read just now; or there are
            checkpoints and all of them are damaged.
          Interrupted: there are several hosts, and a checkpoint was damaged.
        """
        self._manager.wait_until_finished()
        steps = sorted(set(self._manager.all_steps()) - passed_over(self.root.parent), reverse=True)
        damaged: dict[int, str] = {}
        for number, step in enumerate(steps, 1):
            folder = self.root / str(step)
            try:
                with TURN:
                    restored = read(f"checkpoint {step}", folder, functools.partial(self._restore, step, abstract))
            except DamagedError as error:
                damaged[step] = f"checkpoint {folder} is damaged ({error})"
                if jax.process_count() > 1 and number < len(steps):
                    self._set_aside(step, damaged[step], say)
                    raise Interrupted(f"{damaged[step]}; it was set aside: start again") from error
                continue
            for other, what in damaged.items():
                self._set_aside(other, what, say)
            return restored
        if damaged:
            raise UserError(
                "there are checkpoints, and none is whole:\n    " + "\n    ".join(damaged.values()),
                where=os.fspath(self.root),
                fix="if they can be had from elsewhere, copy them back; to begin anew, move this folder away",
            )
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
        verify_meta(meta)
        items = _items(abstract)
        self._compare(step, meta, _shapes(items))
        arrays = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        found = self._manager.restore(step, args=ocp.args.Composite(**arrays))
        found = {name: found[name] for name in items}
        verify(found, meta["digests"])
        fields = {_ITEMS[name]: item for name, item in found.items()}
        return Restored(State(**{"optimizer": None, **fields}, step=step), meta)

    def _compare(self, step: int, meta: Mapping[str, Any], arrays: str) -> None:
        """Raises `UserError` if the checkpoint of a step was not made as this run is."""
        before, now = meta.get(MADE, {}), through_json(self.meta.get(MADE, {}))
        changes = difference(before, now)
        if not changes and meta["arrays"] != arrays:
            changes = [f"shapes of the arrays: {meta['arrays']} -> {arrays}"]
        if changes:
            shown = "\n    ".join(changes[:_SHOWN]) + ("\n    ..." if len(changes) > _SHOWN else "")
            raise UserError(
                f"the checkpoint of step {step} was made otherwise:\n    {shown}",
                where=os.fspath(self.root),
                fix="give a new --workdir, or the settings and the text that the run was started with",
            )

    def _set_aside(self, step: int, what: str, say: Say) -> None:
        """Takes a damaged checkpoint out of the way; another process may have been first."""
        folder, aside = self.root / str(step), self.root.parent / DAMAGED
        is_renamed = can_rename(folder)
        place = f"moved to {DAMAGED}/" if is_renamed else "left where it is"
        say("damaged checkpoint", step, f"{what}; {place}, going on from the one before")
        with disk_errors(aside):
            aside.mkdir(parents=True, exist_ok=True)
            if not is_renamed:
                write_json(self._note(step), {"step": step, "why": what})
                return
            number = sum(1 for _ in aside.iterdir())
            with contextlib.suppress(FileNotFoundError):
                folder.rename(aside / f"{step}-{number}")
        self._manager.reload()

    def _note(self, step: int) -> epath.Path:
        return self.root.parent / DAMAGED / f"{step}.json"


@dataclasses.dataclass(frozen=True)
class _WholeOnes(PreservationPolicy):
    """`_WholeOnes` keeps the whole checkpoints that `policy` keeps; damaged ones are not counted, and stay."""

    policy: PreservationPolicy
    run_dir: epath.Path

    def should_preserve(self, checkpoints: Sequence[Any], *, context: PreservationContext) -> Sequence[bool]:
        damaged = passed_over(self.run_dir)
        whole = [each for each in checkpoints if each.step not in damaged]
        kept = iter(self.policy.should_preserve(whole, context=context))
        return [each.step in damaged or next(kept) for each in checkpoints]


def _items(state: State) -> dict[str, Any]:
    """Returns the items of a checkpoint by name."""
    return {name: item for name, field in _ITEMS.items() if (item := getattr(state, field)) is not None}


def describe(model: DecoderConfig, **facts: Any) -> dict[str, Any]:
    """Returns the `meta` item of a checkpoint: the model's config and whatever else names it."""
    return {"model": to_mapping(model), **facts}


def can_rename(folder: epath.Path) -> bool:
    """Returns whether a folder can be renamed: an object store has no folders."""
    return "://" not in os.fspath(folder)


def verify(items: Mapping[str, Any], saved: Mapping[str, int]) -> None:
    """Compares arrays with the digests that were made of them before they were written.

    Raises:
      DamagedError: an array differs.
    """
    wrong = [name for name, value in tree_digests(items).items() if saved.get(name) != value]
    if wrong:
        raise DamagedError(f"{len(wrong)} arrays are not those that were saved, the first: {wrong[0]}")


def verify_meta(meta: Mapping[str, Any]) -> None:
    """Compares a checkpoint's facts with their own digest.

    Raises:
      DamagedError: they differ.
    """
    if digest({name: value for name, value in meta.items() if name != "digest"}) != meta.get("digest"):
        raise DamagedError("its meta item is not what was saved")


def _shapes(items: Mapping[str, Any]) -> str:
    """Returns a digest of the names, shapes and dtypes of the arrays, which is the same on any mesh."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return digest({jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves})


def through_json(value: Any) -> Any:
    """Turns tuples into lists, as they come back from JSON."""
    if isinstance(value, Mapping):
        return {key: through_json(item) for key, item in value.items()}
    return [through_json(item) for item in value] if isinstance(value, (list, tuple)) else value
