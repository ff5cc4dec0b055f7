"""Some checkpoints hold only what a stage has learnt, adapters or some of the parameters; the rest is in their base.

The facts of such a checkpoint say what was learnt (`learn`), and on what (`base`). The base is {"folder", "step",
"digest"} of the run that it started from, or {"seed"} of fresh parameters. The folder is relative to the run's own, so
that a study can be moved. A base may itself be a checkpoint that holds only what was learnt.
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
    """`_Learnt` holds a `Learn` for `build`, which makes only dataclasses."""

    learn: Learn = dataclasses.field(default_factory=Full)


def learn_of(facts: Mapping[str, Any]) -> Learn:
    """Returns what the checkpoint with these facts holds: the whole model, adapters, or some of the parameters."""
    return build(_Learnt, {LEARN: facts[LEARN]} if LEARN in facts else {}, where="meta").learn


def base_facts(
    learn: Learn, run_dir: PathLike, start_from: PathLike, step: int | None, start: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the facts `learn` and `base` of a run; none where it holds the whole model.

    Args:
      learn: what of the model the run learns.
      run_dir: the run's folder.
      start_from: the folder of the run that it starts from; "": it starts from fresh parameters.
      step: the step of the checkpoint that it starts from.
      start: {"parameters"} with their digest (see `digest_of`), or {"seed"}.
    """
    if isinstance(learn, Full):
        return {}
    if not start_from:
        return {LEARN: to_mapping(learn), BASE: {"seed": start["seed"]}}
    base = {"folder": _relative(start_from, run_dir), "step": step, "digest": start["parameters"]}
    return {LEARN: to_mapping(learn), BASE: base}


def base_folder(run_dir: PathLike, base: Mapping[str, Any]) -> epath.Path:
    """Returns the folder of the run that a `base` names, if it names one by its folder."""
    folder = base["folder"]
    if "://" in folder or os.path.isabs(folder):
        return epath.Path(folder)
    scheme, path = _split(run_dir)
    return epath.Path(scheme + os.path.normpath(os.path.join(path, folder)))


def digest_of(facts: Mapping[str, Any], weights: str = "params") -> str:
    """Returns a digest of the model that was saved with these facts: equal models have equal ones in any folder."""
    own = {name: value for name, value in facts["digests"].items() if name.startswith(f"['{weights}']")}
    return digest([own, facts[LEARN], facts[BASE].get("digest", facts[BASE])] if BASE in facts else own)


def _relative(place: PathLike, run_dir: PathLike) -> str:
    """Returns `place` as seen from the run's folder, or its whole path if they are on different file systems."""
    (scheme, path), (other, beside) = _split(place), _split(run_dir)
    return os.path.relpath(path, beside) if scheme == other else scheme + path


def _split(place: PathLike) -> tuple[str, str]:
    """Returns ("gs:/", "/bucket/folder") for a place in an object store, ("", its absolute path) for one on a disk."""
    scheme, mark, path = os.fspath(place).partition("://")
    return (f"{scheme}:/", f"/{path}") if mark else ("", os.fspath(epath.Path(place).resolve()))
