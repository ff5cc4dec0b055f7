"""Checkpoints that hold only what a stage has learnt: adapters, or some of the parameters; the rest is the base's.

The facts of such a checkpoint say what was learnt (`learn`) and on what (`base`): {"folder", "step", "digest"} of the
run that it started from, the folder relative to the run's own so that a study can be moved; or {"seed"} of fresh
parameters. A base may be such a checkpoint itself.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from alignpre_jax.foundation import PathLike, build, digest, to_mapping
from alignpre_jax.model import Full, Learn

LEARN, BASE = "learn", "base"


@dataclasses.dataclass(frozen=True)
class _Learnt:
    """For `build`, which makes dataclasses only."""

    learn: Learn = dataclasses.field(default_factory=Full)


def learn_of(facts: Mapping[str, Any]) -> Learn:
    """What the parameters of the checkpoint with these facts are: the whole model, adapters, or some of it."""
    return build(_Learnt, {LEARN: facts[LEARN]} if LEARN in facts else {}, where="meta").learn


def base_facts(
    learn: Learn, run_dir: PathLike, start_from: PathLike, step: int | None, start: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts `learn` and `base` of a run; none where it holds the whole model.

    Args:
      learn: what of the model the run learns.
      run_dir: the run's folder.
      start_from: the folder of the run that it starts from; "": it starts from fresh parameters.
      step: of the checkpoint that it starts from.
      start: {"parameters"} with their digest (see `digest_of`), or {"seed"}.
    """
    if isinstance(learn, Full):
        return {}
    if not start_from:
        return {LEARN: to_mapping(learn), BASE: {"seed": start["seed"]}}
    base = {"folder": _relative(start_from, run_dir), "step": step, "digest": start["parameters"]}
    return {LEARN: to_mapping(learn), BASE: base}


def base_folder(run_dir: PathLike, base: Mapping[str, Any]) -> epath.Path:
    """Where the run lies that a `base` with a folder names."""
    folder = base["folder"]
    if "://" in folder or os.path.isabs(folder):
        return epath.Path(folder)
    scheme, path = _split(run_dir)
    return epath.Path(scheme + os.path.normpath(os.path.join(path, folder)))


def digest_of(facts: Mapping[str, Any], weights: str = "params") -> str:
    """Names the model that was saved with these facts: equal ones have equal digests, whatever their folders."""
    own = {name: value for name, value in facts["digests"].items() if name.startswith(f"['{weights}']")}
    return digest([own, facts[LEARN], facts[BASE].get("digest", facts[BASE])] if BASE in facts else own)


def _relative(place: PathLike, run_dir: PathLike) -> str:
    """`place` as seen from the run's folder; the whole of it, if they are on different file systems."""
    (scheme, path), (other, beside) = _split(place), _split(run_dir)
    return os.path.relpath(path, beside) if scheme == other else scheme + path


def _split(place: PathLike) -> tuple[str, str]:
    """("gs:/", "/bucket/folder") of a place in an object store, ("", the absolute path) of one on a disk."""
    scheme, mark, path = os.fspath(place).partition("://")
    return (f"{scheme}:/", f"/{path}") if mark else ("", os.fspath(epath.Path(place).resolve()))
