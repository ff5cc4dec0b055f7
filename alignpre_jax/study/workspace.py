"""A study's folder: where each thing lies, and whose it is."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from etils import epath

from alignpre_jax import __version__
from alignpre_jax.foundation import PathLike, UserError, build, difference, read_json, to_mapping, write_json
from alignpre_jax.study.config import StudyConfig

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder of one study.

    config.json, versions.json   the resolved config and what it runs with
    data/                        documents, tokenizer.json, rows/LENGTH/STRATUM, held_out.jsonl
    data/*.json                  ledger, overlap, counts of documents; what was left out: quarantine/, duplicates/
    train/imported/              the model that all arms start from, where there is one
    train/SEED/STAGE[-ARM]/      checkpoints, metrics.jsonl
    evals/SEED/STAGE[-ARM]/      results.jsonl, tax.json
    report.json, report.html, metrics.jsonl
    """

    root: epath.Path
    config: StudyConfig

    @property
    def data(self) -> epath.Path:
        """Prepared text and rows."""
        return self.root / "data"

    @property
    def tokenizer(self) -> epath.Path:
        """The study's tokenizer."""
        return self.data / "tokenizer.json"

    def documents(self, source: str) -> epath.Path:
        """The documents of a source, as JSON lines."""
        return self.data / "documents" / f"{source}.jsonl"

    def rows(self, length: int) -> epath.Path:
        """The row stores with rows of `length` tokens."""
        return self.data / "rows" / str(length)

    def run_dir(self, run: str) -> epath.Path:
        """The folder of a training run."""
        return self.root / "train" / run

    @property
    def imported(self) -> epath.Path:
        """The run's folder of the model that all arms start from (`init_from`)."""
        return self.run_dir("imported")

    def eval_dir(self, run: str) -> epath.Path:
        """The folder of a run's evals."""
        return self.root / "evals" / run


def open_workspace(config: StudyConfig, root: PathLike, command: str = "") -> Workspace:
    """Opens the folder for this config, making it if need be; a folder made with another config is refused.

    Args:
      config: of the study.
      root: the folder, on a local or mounted disk.
      command: what makes the study again; kept when the folder is made, and shown in the report.
    """
    if "://" in os.fspath(root):
        fix = "give a folder on a disk (a mounted bucket will do), and copy it to the bucket afterwards"
        raise UserError(f"a study's folder cannot be in an object store: {root}", where="--workdir", fix=fix)
    space = Workspace(epath.Path(root), config)
    path = space.root / "config.json"
    plain = to_mapping(config)
    if path.exists():
        changes = difference(read_json(path), plain)
        if changes:
            shown = "\n    ".join(changes[:12]) + ("\n    ..." if len(changes) > 12 else "")
            raise UserError(
                f"{space.root} was made with another config:\n    {shown}",
                where="--config",
                fix="give a new --workdir, undo the change, or delete the folder",
            )
    else:
        write_json(path, plain)
        write_json(space.root / "versions.json", {"command": command, "versions": versions()})
    return space


def reopen_workspace(root: PathLike) -> Workspace:
    """Opens a folder with the config it was made with."""
    path = epath.Path(root) / "config.json"
    if not path.exists():
        raise UserError(f"{root} is not a study's folder", where="--workdir", fix="run `alignpre study` with it first")
    return Workspace(epath.Path(root), build(StudyConfig, read_json(path), where=f"{path}"))


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
