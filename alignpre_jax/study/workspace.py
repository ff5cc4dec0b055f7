"""A study's folder: where each thing lies, and whose it is."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from alignpre_jax import __version__
from alignpre_jax.documents import Document
from alignpre_jax.foundation import (
    PathLike,
    UserError,
    build,
    difference,
    read_json,
    read_jsonl,
    to_mapping,
    write_json,
)
from alignpre_jax.study.config import StudyConfig

LINKS = "links.json"
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
    links.json                   in a sweep: which of data, train/... and evals/... are another study's, and where
    """

    root: epath.Path
    config: StudyConfig
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)  # to places relative to `root`

    def place(self, name: str) -> epath.Path:
        """Where a part of the folder lies: in it, or in that of the study that it is shared with."""
        return self.root / self.links.get(name, name)

    @property
    def data(self) -> epath.Path:
        """Prepared text and rows."""
        return self.place("data")

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

    def rows_read(self, length: int, stratum: str) -> epath.Path:
        """The row store that training reads: the study's own, or its copy in a bucket (`data.rows_url`)."""
        url = self.config.data.rows_url
        return (epath.Path(url) / str(length) if url else self.rows(length)) / stratum

    def run_dir(self, run: str) -> epath.Path:
        """The folder of a training run."""
        return self.place(f"train/{run}")

    @property
    def imported(self) -> epath.Path:
        """The run's folder of the model that all arms start from (`init_from`)."""
        return self.run_dir("imported")

    def eval_dir(self, run: str) -> epath.Path:
        """The folder of a run's evals."""
        return self.place(f"evals/{run}")


def open_workspace(
    config: StudyConfig, root: PathLike, command: str = "", links: Mapping[str, str] | None = None
) -> Workspace:
    """Opens the folder for this config, making it if need be; a folder made with another config is refused.

    Args:
      config: of the study.
      root: the folder, on a local or mounted disk.
      command: what makes the study again; kept when the folder is made, and shown in the report.
      links: parts that are another study's (see `Workspace`); kept in the folder. None: as they are.
    """
    if "://" in os.fspath(root):
        fix = "mount the bucket on every host (gcp/startup.sh does, with gcsfuse) and give the folder it is mounted on"
        raise UserError(f"a study's folder cannot be in an object store: {root}", where="--workdir", fix=fix)
    space = Workspace(epath.Path(root), config, _links(root) if links is None else links)
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
    if links is not None and dict(links) != _links(root):
        write_json(space.root / LINKS, links)
    return space


def read_documents(path: PathLike) -> Iterator[Document]:
    """The documents of a file of `Workspace.documents`."""
    return map(Document.from_json, read_jsonl(path))


def reopen_workspace(root: PathLike) -> Workspace:
    """Opens a folder with the config it was made with."""
    path = epath.Path(root) / "config.json"
    if not path.exists():
        raise UserError(f"{root} is not a study's folder", where="--workdir", fix="run `alignpre study` with it first")
    return Workspace(epath.Path(root), build(StudyConfig, read_json(path), where=f"{path}"), _links(root))


def _links(root: PathLike) -> dict[str, str]:
    path = epath.Path(root) / LINKS
    return read_json(path) if path.exists() else {}


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
