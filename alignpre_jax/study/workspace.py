"""A workspace knows a study's folder: where each thing lies, and which things are another study's."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from alignpre_jax.checkpoints import own_template
from alignpre_jax.documents import Document
from alignpre_jax.foundation import PathLike, UserError, build, digest, read_json, read_jsonl, to_mapping, write_json
from alignpre_jax.rows import Template
from alignpre_jax.study.config import StudyConfig
from alignpre_jax.study.graph import evals_of, in_loop_evals, job_graph, with_needs
from alignpre_jax.study.keys import Recipes
from alignpre_jax.study.made import check_made, folders_by_key, read_made
from alignpre_jax.study.templates import named_template, reads_chats
from alignpre_jax.study.tree import Tree

LINKS = "links.json"
STUDY = "study.json"
LOCK = ".lock"  # held while jobs are done; see `launch.local.lock_folder`
TOKENIZER_MADE = "tokenizer.made"  # folder beside the tokenizer that says what it was made from
FORMAT = 2  # of the folder: 1 had no tree of stages


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder of one study.

    config.json, study.json         the resolved config; the format, the command that makes the study again
    data/documents/SOURCE/          documents.jsonl, held_out.jsonl, counts.json, made.json
    data/tokenizer.json             with tokenizer.made/made.json beside it
    data/rows/LENGTH-.../STRATUM     row stores; see `rows_name`
    data/*.json                     ledger, overlap; beside them quarantine/ and duplicates/, with what was left out
    train/imported/                 the model that all arms start from, where there is one
    train/SEED/STAGE[-ARM]/         a model: checkpoints, tokenizer, template; metrics.jsonl, made.json
        evals/STEP/EVAL.jsonl       answers that were given during training
    evals/SEED/STAGE[-ARM]/EVAL/    results.jsonl, made.json
    report.json, report.html, metrics.jsonl
    links.json                      which of data, train/... and evals/... lie elsewhere: in another study's folder, as
                                    in a sweep, or under the name that a run had before the study grew
    """

    root: epath.Path
    config: StudyConfig
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name of a part -> its place relative to `root`

    @functools.cached_property
    def tree(self) -> Tree:
        """The tree of the study's runs."""
        return Tree(self.config)

    @functools.cached_property
    def recipes(self) -> Recipes:
        """The recipes of everything in the folder."""
        return Recipes(self.tree)

    def place(self, name: str) -> epath.Path:
        """Where a part of the study lies: in this folder, or in the folder of the study with which it is shared."""
        return self.root / self.links.get(name, name)

    @property
    def data(self) -> epath.Path:
        """The folder of prepared text and rows."""
        return self.place("data")

    @property
    def tokenizer(self) -> epath.Path:
        """The file of the study's tokenizer."""
        return self.data / "tokenizer.json"

    def source(self, name: str) -> epath.Path:
        """The folder of a source's documents."""
        return self.data / "documents" / name

    def documents(self, source: str) -> epath.Path:
        """The file of a source's documents, as JSON lines."""
        return self.source(source) / "documents.jsonl"

    def held_out(self, source: str) -> epath.Path:
        """The file of a source's held-out documents, which no row has, as JSON lines."""
        return self.source(source) / "held_out.jsonl"

    def rows_name(self, stage: str, stratum: str) -> str:
        """The name of the folder of a row store: LENGTH-PACKING for texts, else LENGTH-KIND-DIGEST, of the template."""
        rows, kind = self.config.stages[stage].rows, self.config.data.kind_of(stratum)
        if kind == "text":
            return f"{rows.length}-{rows.packing}"
        return f"{rows.length}-{kind}-{digest(to_mapping(self.template(stage) or Template()), 8)}"

    def rows(self, stage: str, stratum: str) -> epath.Path:
        """The row store of a stratum in the form that a stage reads; stages that ask for the same rows share it."""
        return self.data / "rows" / self.rows_name(stage, stratum) / stratum

    def rows_read(self, stage: str, stratum: str) -> epath.Path:
        """The row store that training reads: that of the study's folder, or its copy in a bucket (`data.rows_url`)."""
        url = self.config.data.rows_url
        return epath.Path(url) / self.rows_name(stage, stratum) / stratum if url else self.rows(stage, stratum)

    def template(self, stage: str) -> Template | None:
        """The chat template of a stage's model: the one that the stage names, or that of the stage it goes on from.

        The first stage goes on from the imported model, where there is one. Chats are written with the plain template
        where nobody named another. None where nobody did and there are no chats.
        """
        found = named_template(self.config, stage)
        if found is None and self.config.init_from:
            found = own_template(self.imported)
        return Template() if found is None and reads_chats(self.config, stage) else found

    def run_dir(self, run: str) -> epath.Path:
        """The folder of a training run."""
        return self.place(f"train/{run}")

    @property
    def imported(self) -> epath.Path:
        """The folder of the model that all arms start from (`init_from`), which looks like a training run's folder."""
        return self.run_dir("imported")

    def eval_dir(self, run: str, name: str) -> epath.Path:
        """The folder of the answers that a run's last checkpoint gave to an eval."""
        return self.place(f"evals/{run}") / name

    def in_loop_dir(self, run: str) -> epath.Path:
        """The folder of the answers that a run gave while it trained: STEP/EVAL.jsonl, and EVAL/made.json."""
        return self.run_dir(run) / "evals"


def open_workspace(
    config: StudyConfig,
    root: PathLike,
    command: str = "",
    links: Mapping[str, str] | None = None,
    *,
    keep: bool = True,
) -> Workspace:
    """Opens the folder of a study with this config, and makes the folder if need be.

    A study may grow: what is there stays, and the jobs make what the config adds. A config that would alter what is
    there is refused.

    Args:
      config: the study's config.
      root: the folder, on a local or mounted disk.
      command: the command that makes the study again; kept in the folder, and shown in the report.
      links: the parts that are another study's (see `Workspace`); kept in the folder. None leaves them as they are.
      keep: whether the config is written into the folder; without it nothing is written.

    Raises:
      UserError: the folder was made by an older version, or something in it would be altered; the message says what, by
        which change, and what depends on it.
    """
    if "://" in os.fspath(root):
        fix = "mount the bucket on every host (gcp/startup.sh does, with gcsfuse) and give the folder it is mounted on"
        raise UserError(f"a study's folder cannot be in an object store: {root}", where="--workdir", fix=fix)
    place = epath.Path(root)
    _check_format(place)
    before = _links(place)
    of_others = {part: where for part, where in (before if links is None else links).items() if where.startswith("..")}
    space = _with_old_names(Workspace(place, config, of_others))
    _check_nothing_is_altered(space)
    if keep:
        _keep(space, command, before)
    return space


def _keep(space: Workspace, command: str, before: Mapping[str, str]) -> None:
    """Writes the config and the links into the folder, where they are not in it yet.

    Raises:
      UserError: a process is at work in the folder, which reads them for every job.
    """
    place, plain = space.root, to_mapping(space.config)
    path = place / "config.json"

    def is_kept() -> bool:
        return path.exists() and _through_json(read_json(path)) == _through_json(plain)

    if is_kept() and dict(space.links) == before:
        return
    with contextlib.ExitStack() as stack:
        for folder in (place, place.parent):  # the studies of a sweep are locked together, one folder up
            if (folder / LOCK).exists() and not stack.enter_context(_lock(folder)):
                if is_kept() and dict(space.links) == _links(place):
                    return  # by another process of the same run, which was faster
                fix = "wait for it or stop it, or give another --workdir"
                raise UserError(f"a process is at work in {folder}, with another config", where="--config", fix=fix)
        if not is_kept():
            known = read_json(place / STUDY) if (place / STUDY).exists() else {}
            write_json(place / STUDY, {"format": FORMAT, "command": command or known.get("command", "")})
            write_json(path, plain)  # last: with it the folder is a study's
        if dict(space.links) != before:
            write_json(place / LINKS, space.links)


@contextlib.contextmanager
def _lock(folder: epath.Path) -> Iterator[bool]:
    """Locks a folder for a moment; yields whether that could be done, or another process is at work there."""
    with (folder / LOCK).open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def reopen_workspace(root: PathLike) -> Workspace:
    """Opens a study's folder with the config that was last written into it."""
    place = epath.Path(root)
    path = place / "config.json"
    if not path.exists():
        raise UserError(f"{root} is not a study's folder", where="--workdir", fix="run `alignpre study` with it first")
    _check_format(place)
    return Workspace(place, build(StudyConfig, read_json(path), where=f"{path}"), _links(place))


def read_documents(path: PathLike) -> Iterator[Document]:
    """Reads the documents of a file such as `Workspace.documents` names."""
    return (Document.from_json(row) for row in read_jsonl(path))


def study_facts(space: Workspace) -> dict[str, str]:
    """Reads the facts of a study: {"format", "command"}, of which the latter is what makes the study again."""
    return read_json(space.root / STUDY)


def _with_old_names(space: Workspace) -> Workspace:
    """Links to runs that are there under another name: another arm was their first, or the baseline, before.

    Where a run's own folder has been made for another run of this study, the run gets a folder beside it.
    """
    links = dict(space.links)
    there = dict(folders_by_key(space.root / "train"))
    wanted = {space.recipes.key(name): name for name in space.tree}
    for key, name in wanted.items():
        own, part = f"train/{name}", f"train/{name}"
        if part in links:
            continue
        made = read_made(space.root / own)
        if key in there and (made is None or made["key"] != key):
            own = f"train/{there[key].parent.name}/{there[key].name}"
        elif made is not None and made["key"] != key and made["key"] in wanted:
            own = f"train/{name}-{key[:6]}"
        if own != part:
            links |= {part: own, f"evals/{name}": f"evals/{own.removeprefix('train/')}"}
    return dataclasses.replace(space, links=links)


def _check_nothing_is_altered(space: Workspace) -> None:
    config, recipes = space.config, space.recipes
    if config.init_from:
        check_made(space.imported, recipes.imported(), "the imported model", lambda: "all runs depend on it")
    for name in config.data.sources:
        what = f"the documents of source {name!r}"
        check_made(space.source(name), recipes.source(name), what, lambda: "rows depend on them")
    check_made(space.data / TOKENIZER_MADE, recipes.tokenizer(), "the tokenizer", lambda: "all rows depend on it")
    for name, run in space.tree.items():
        depends = functools.partial(_behind, space, name)
        check_made(space.run_dir(name), recipes.run(run), f"the run {name}", depends)
        for asked in evals_of(config, run):
            check_made(space.eval_dir(name, asked), recipes.evaluation(run, asked), f"eval {asked!r} of {name}")
        for asked in in_loop_evals(config, run):
            what = f"eval {asked!r} during the training of {name}"
            check_made(space.in_loop_dir(name) / asked, recipes.during(run, asked), what)


def _behind(space: Workspace, run: str) -> str:
    """Says in words which training jobs depend on a run; empty where none does."""
    graph = job_graph(space.tree)
    trained_by = next(job.name for job in graph.values() if job.kind == "train" and run in job.runs)
    found = [
        name
        for name, job in graph.items()
        if job.kind == "train" and name != trained_by and trained_by in with_needs(graph, [name])
    ]
    return f"what depends on it: {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" if found else ""


def _check_format(root: epath.Path) -> None:
    """Refuses a folder that was made by an earlier version."""
    is_there = (root / "config.json").exists()
    found = read_json(root / STUDY).get("format") if (root / STUDY).exists() else None
    if is_there and found != FORMAT:
        raise UserError(
            f"{root} was made by a version of alignpre_jax whose folders this one does not read",
            where="--workdir",
            fix="give a new --workdir, or go on with the version that made it",
        )


def _links(root: epath.Path) -> dict[str, str]:
    path = root / LINKS
    return read_json(path) if path.exists() else {}


def _through_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _through_json(item) for key, item in value.items()}
    return [_through_json(item) for item in value] if isinstance(value, (list, tuple)) else value
