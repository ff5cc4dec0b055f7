"""What lies in a study's folder says what it was made from: `made.json`, a recipe with its key and the versions."""

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
    """Says in a folder what is made in it; a folder that says so already is left as it is."""
    if not (folder / MADE).exists():
        plain = to_mapping(recipe)
        write_json(folder / MADE, {"key": digest(plain), "recipe": plain, "versions": versions()})


def read_made(folder: epath.Path) -> dict[str, Any] | None:
    """What `write_made` wrote: {"key", "recipe", "versions"}; None where nothing has been made."""
    path = folder / MADE
    return read_json(path) if path.exists() else None


def check_made(folder: epath.Path, recipe: Recipe, what: str, depends: Callable[[], str] = str) -> None:
    """Refuses to make something else in a folder in which something has been made.

    Args:
      folder: where it lies.
      recipe: what it is to be made from.
      what: a name for it, in the message.
      depends: says in words what else would change with it; asked only where something would.

    Raises:
      UserError: it has been made from something else; the message shows the difference.
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
        fix="undo the change, give a new --workdir, or call what is changed by another name, so that it is made anew",
    )


def folders_by_key(root: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """(key, folder) of every training run below WORKDIR/train, in the order of their names."""
    if root.exists():
        for seed in sorted(root.iterdir()):
            for folder in sorted(seed.iterdir()) if seed.is_dir() else ():
                if (found := read_made(folder)) is not None:
                    yield found["key"], folder


@functools.cache
def versions() -> dict[str, Any]:
    """What the numbers depend on besides the config: packages, Python, machine, git revision."""
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
