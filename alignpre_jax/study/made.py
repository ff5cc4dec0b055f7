"""A file `made.json` says what the folder around it was made from: the recipe, its key, and the versions used."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from alignpre_jax import __version__
from alignpre_jax.foundation import (
    UserError,
    canonical_json,
    difference,
    digest,
    parse_json,
    read_json,
    to_mapping,
    write_json,
)
from alignpre_jax.study.keys import Recipe

MADE = "made.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")


def write_made(folder: epath.Path, recipe: Recipe) -> None:
    """Writes in a folder what is made in it. A folder that has its `made.json` already is left as it is."""
    if not (folder / MADE).exists():
        plain = to_mapping(recipe)
        write_json(folder / MADE, {"key": digest(plain), "recipe": plain, "versions": versions()})


def read_made(folder: epath.Path) -> dict[str, Any] | None:
    """Reads what `write_made` wrote: {"key", "recipe", "versions"}; None where nothing has been made."""
    path = folder / MADE
    return read_json(path) if path.exists() else None


def check_made(folder: epath.Path, recipe: Recipe, what: str, depends: Callable[[], str] = str) -> None:
    """Refuses to make something else in a folder in which something has been made.

    Args:
      folder: the folder in which the thing lies, or is to be made.
      recipe: what the thing is to be made from.
      what: what the message calls the thing.
      depends: says in words what else would change with the thing; called only where the thing would change.

    Raises:
      UserError: the thing has been made from something else; the message shows the difference.
    """
    found = read_made(folder)
    if found is None or found["key"] == digest(to_mapping(recipe)):
        return
    plain = parse_json(canonical_json(to_mapping(recipe)), where=f"{folder}")  # as it comes back from a file
    changes = difference(found["recipe"], plain)
    shown = "\n    ".join(changes[:12]) + ("\n    ..." if len(changes) > 12 else "")
    others = depends()
    raise UserError(
        f"the change would alter {what}, which is there already:\n    {shown}" + (f"\n  {others}" if others else ""),
        where=f"--config and {folder}",
        fix="undo the change, give a new --workdir, call what is changed by another name, or delete that folder and "
        "what depends on it, so that it is made anew",
    )


def folders_by_key(root: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """Yields (key, folder) of every training run below WORKDIR/train, in the order of the names of the folders."""
    if root.exists():
        for seed in sorted(root.iterdir()):
            for folder in sorted(seed.iterdir()) if seed.is_dir() else ():
                if (found := read_made(folder)) is not None:
                    yield found["key"], folder


@functools.cache
def versions() -> dict[str, Any]:
    """The versions on which the numbers depend besides the config: of packages, Python, the machine and this source."""
    return {
        "alignpre_jax": __version__,
        "git": git_revision(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def git_revision() -> str:
    """The revision of the source tree, with + when it has uncommitted changes; empty outside git."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip()
