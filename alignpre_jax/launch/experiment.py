"""An experiment is the studies of a sweep as one graph of tasks, in which a task that studies share is there once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from alignpre_jax.foundation import PathLike, UserError, build, difference, digest, read_json, to_mapping, write_json
from alignpre_jax.launch.sweep import Point, apply, point_name
from alignpre_jax.study import (
    Job,
    Recipes,
    StudyConfig,
    Tree,
    Workspace,
    is_done,
    job_graph,
    open_workspace,
    reopen_workspace,
)

FILE = "sweep.json"
KINDS = ("import", "prepare", "train", "eval")


@dataclasses.dataclass(frozen=True)
class Task:
    """A task is one job of one study. Its `id`, [POINT/]JOB, and its folder stay the same from launch to launch."""

    id: str
    space: Workspace
    job: Job
    needs: tuple[str, ...]  # ids


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle is the tasks that one machine does in order: an arm's own runs of a seed with evals, or a shared run."""

    id: str  # at most 60 lower-case letters, digits and hyphens: cloud resources are called after it
    label: str
    tasks: tuple[str, ...]  # ids, in order
    needs: tuple[str, ...]  # ids of bundles


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All tasks of a sweep by id, each after the tasks it needs."""

    name: str
    root: epath.Path
    spaces: Mapping[str, Workspace]  # by the point's name
    points: Mapping[str, Point]
    tasks: Mapping[str, Task]


def plan_experiment(config: ConfigDict, points: Sequence[Point], root: PathLike, command: str = "") -> Experiment:
    """Lays out a sweep in `root`: a folder for each point, or `root` itself where there is one empty point.

    Jobs of different points that make the same files (see `study.Recipes`) are one task, in the folder of the first
    point that had it; the other points link to that folder. When the sweep is launched again with more points,
    everything stays where it is.

    Raises:
      UserError: two points are equal, the folder holds a study where this is a sweep or the other way round, or the
        config would alter something that has been made (see `study.open_workspace`).
    """
    names = [point_name(point) for point in points]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the sweep has the point {twice} twice", where="sweep()", fix="leave one of them out")
    path = epath.Path(root) / FILE
    before = read_json(path) if path.exists() else {"points": {}, "owners": {}}
    if before["points"] and ("" in names) != ("" in before["points"]):
        fix = "give another --workdir: a folder holds one study or the studies of a sweep"
        raise UserError(
            f"{root} holds {'one study' if '' in before['points'] else 'a sweep'}", where="--workdir", fix=fix
        )
    configs = {
        name: build(StudyConfig, apply(config, point).to_dict()) for name, point in zip(names, points, strict=True)
    }
    # The key of a job -> the id of the task that does it. A point that has left the sweep keeps what it has finished.
    owners = {key: task for key, task in before["owners"].items() if _is_kept(task, names, root)}
    tasks: dict[str, Task] = {}
    spaces: dict[str, Workspace] = {}
    for name, study in configs.items():
        tree = Tree(study)
        keys, graph = Recipes(tree).of_jobs(), job_graph(tree)
        ids = {job: _own(owners, key, name, job) for job, key in keys.items() if job != "prepare"}
        first_data = owners.setdefault(keys["prepare"], _join(name, "prepare"))
        ids["prepare"] = _join(name, "prepare")  # every study plans its own arms, also on data that is another study's
        links = {
            folder: _link(name, task, spaces[_owner(task)].links.get(there, there) if _owner(task) in spaces else there)
            for job, task in ids.items()
            if task != _join(name, job)
            for folder, there in zip(_folders(job), _folders(_job(task)), strict=True)
        }
        if first_data != ids["prepare"]:
            links["data"] = _link(name, first_data, "data")
        space = open_workspace(study, epath.Path(root) / name if name else root, command, links)
        spaces[name] = space
        for job in graph.values():
            if ids[job.name] != _join(name, job.name):
                continue
            needs = [ids[need] for need in job.needs]
            if job.kind == "prepare" and first_data != ids["prepare"]:
                needs.append(first_data)
            needs = [need for need in needs if _owner(need) in names]
            tasks[ids[job.name]] = Task(ids[job.name], space, job, tuple(needs))
    known = dict(before["points"]) | dict(zip(names, points, strict=True))
    if known != before["points"] or owners != before["owners"]:
        write_json(path, {"points": known, "owners": owners})
    return Experiment(
        next(iter(configs.values())).name, epath.Path(root), spaces, dict(zip(names, points, strict=True)), tasks
    )


def bundles(experiment: Experiment) -> dict[str, Bundle]:
    """The bundles of tasks for which machines are booked, by id, each after the bundles it needs."""
    of_task = {task.id: _bundle_label(task) for task in experiment.tasks.values()}
    ids = {
        label: resource_name(experiment.name, label, experiment.root.name) for label in dict.fromkeys(of_task.values())
    }
    made = {}
    for label, name in ids.items():
        inside = [task for task, found in of_task.items() if found == label]
        needs = {of_task[need] for task in inside for need in experiment.tasks[task].needs} - {label}
        made[name] = Bundle(name, label, tuple(inside), tuple(ids[each] for each in ids if each in needs))
    return made


def resource_name(experiment: str, label: str, folder: str) -> str:
    """A name for cloud resources; it depends on the experiment, the name of its folder and the bundle's label alone."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{experiment}-{label}".lower()).strip("-")
    return f"{words[:50].strip('-')}-{digest([folder, label], 8)}"


def check_config(config: StudyConfig, saved: object, place: str) -> None:
    """Refuses a folder in a bucket that was made with another config, whatever the difference."""
    changes = difference(saved, to_mapping(config))
    if changes:
        shown = "\n    ".join(changes[:12])
        raise UserError(
            f"{place} was made with another config:\n    {shown}", where="--config", fix="give a new --workdir"
        )


def _bundle_label(task: Task) -> str:
    """The label of a task's bundle, which is the same for tasks that belong together."""
    point, job = task.id.removesuffix(task.job.name).rstrip("/"), task.job
    if job.kind in ("import", "prepare"):
        return _join(point, "prepare")
    run = task.space.tree[job.run]
    return _join(point, f"seed{run.seed}/{run.arms[0]}" if len(run.arms) == 1 else run.name)


def _own(owners: dict[str, str], key: str, point: str, job: str) -> str:
    """The id of the task that does a point's job, which becomes the owner of the key where nobody is.

    A job that the same point had under another name, because its run had another first arm before the study grew, is
    the point's own job under its new name; the folder is found by the key (see `study.open_workspace`).
    """
    task = owners.get(key)
    if task is None or _owner(task) == point:
        task = owners[key] = _join(point, job)
    return task


def _owner(task: str) -> str:
    """The point in a task's id; "" where the id begins with a kind of job and so names no point."""
    first = task.partition("/")[0]
    return "" if first in KINDS else first


def _is_kept(task: str, names: Sequence[str], root: PathLike) -> bool:
    point = _owner(task)
    folder = epath.Path(root) / point
    if point in names or not (folder / "config.json").exists():
        return point in names
    space = reopen_workspace(folder)
    job = job_graph(space.tree).get(_job(task))  # none, where its arm has been dropped since
    return job is not None and is_done(space, job)


def _join(point: str, job: str) -> str:
    return f"{point}/{job}" if point else job


def _folders(job: str) -> list[str]:
    """The parts of a study's folder that a job makes, found from the job's name."""
    kind, _, run = job.partition("/")
    if kind == "import":
        return ["train/imported"]
    if kind == "eval":
        return [f"evals/{run}"]
    seeds, _, label = run.partition("/")
    return [f"train/seed{seed}/{label}" for seed in seeds.removeprefix("seed").split("+")]


def _job(task: str) -> str:
    """The name of the job in a task's id."""
    return task.removeprefix(f"{_owner(task)}/")


def _link(point: str, task: str, folder: str) -> str:
    """The link from a point's folder to a folder that a task of another point makes."""
    assert point, task  # a study by itself has nobody to share with
    return f"../{_owner(task)}/{folder}"
