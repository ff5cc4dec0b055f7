"""This module runs an experiment on a cloud target: its folder goes into the bucket, its bundles into the queue."""

from __future__ import annotations

import dataclasses
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from alignpre_jax.foundation import Report, UserError, digest
from alignpre_jax.launch.cloud import CloudError, Tool, read_object
from alignpre_jax.launch.clouds import MOUNT, Target, split_url
from alignpre_jax.launch.experiment import Bundle, Experiment, bundles, check_config
from alignpre_jax.launch.queue import Board, Messages, drain


@dataclasses.dataclass
class Slot:
    """A slot of the queue: for one bundle at a time, a thread sees it through on a target."""

    target: Target
    commands: dict[str, Sequence[str]]  # by the bundle's id
    messages: Messages

    def start(self, name: str) -> None:
        """Begins a bundle and returns at once."""
        threading.Thread(target=self._run, args=(name,), daemon=True).start()

    def recover(self) -> None:
        """Does nothing, because every bundle has its own thread."""

    def _run(self, name: str) -> None:
        try:
            self.target.run(name, self.commands[name], lambda note: self.messages.put((self, {"note": note})))
        except UserError as error:
            self.messages.put((self, {"user_error": {"what": error.what, "where": error.where, "fix": error.fix}}))
        except CloudError as error:
            self.messages.put((self, {"crashed": f"a call failed: {error.text}"}))
        else:
            self.messages.put((self, {"done": name}))


def run_remote(
    experiment: Experiment,
    url: str,
    target: Target,
    report: Report,
    *,
    parallel: int = 8,
    dry_run: bool = False,
    changed: Callable[[Board], None] = lambda board: None,
) -> None:
    """Runs all bundles, at most `parallel` at a time; see `drain` for what happens when some fail.

    Closing this process leaves the machines at work; the same call finds them again by their names.
    """
    made = bundles(experiment)
    commands = {name: command_of(experiment, bundle, url) for name, bundle in made.items()}
    if dry_run:
        for name, bundle in made.items():
            waits = f" after {', '.join(made[need].label for need in bundle.needs)}" if bundle.needs else ""
            print(f"# {bundle.label}{waits}")
            target.run(name, commands[name], lambda note: None)
        return
    messages: Messages = queue.Queue()
    board = Board({name: bundle.needs for name, bundle in made.items()}, changed)
    slots = [Slot(target, dict(commands), messages) for _ in range(min(parallel, len(made)))]
    drain(board, slots, messages, report, keep_going=True, attempts=3)


def command_of(experiment: Experiment, bundle: Bundle, url: str) -> list[str]:
    """What a host runs for a bundle."""
    _, folder = split_url(url)
    first = experiment.tasks[bundle.tasks[0]]
    names = [experiment.tasks[task].job.name for task in bundle.tasks]
    below = first.space.root.relative_to(experiment.root)
    workdir = f"{MOUNT}/{folder}" if str(below) == "." else f"{MOUNT}/{folder}/{below}"
    return ["alignpre", "job", *names, f"--workdir={workdir}"]


def upload(experiment: Experiment, url: str, gcloud: Tool) -> None:
    """Puts the experiment's folders, which say what is to be done, into the bucket.

    Raises:
      UserError: the folder of a study in the bucket was made with another config.
    """
    for space in experiment.spaces.values():
        below = space.root.relative_to(experiment.root)
        place = url if str(below) == "." else f"{url}/{below}"
        saved = read_object(gcloud, f"{place}/config.json")
        if saved:
            check_config(space.config, json.loads(saved), place)
    gcloud("storage", "rsync", "--recursive", f"--exclude={'^(cache|logs)/|lock$'}", str(experiment.root), url)


def package(checkout: Path, place: str, gcloud: Tool) -> str:
    """Archives the files of a checkout that git knows into the bucket, as they are; returns the archive's gs:// URL.

    Raises:
      UserError: the folder is not a git checkout.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=False)
    files = [name for name in listed.stdout.decode().split("\0") if name and (checkout / name).is_file()]
    if listed.returncode or not files:
        raise UserError(
            f"{checkout} is not a git checkout", where="tools/launch.py", fix="launch from a clone of the repository"
        )
    contents = digest([[name, digest((checkout / name).read_bytes())] for name in sorted(files)])
    url = f"{place}/packages/alignpre-{contents}.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.tar.gz"
        command = ["tar", "-czf", str(path), "--transform=s,^,alignpre_jax/,", "--null", "--files-from=-"]
        subprocess.run(command, cwd=checkout, input="\0".join(files).encode(), check=True)
        gcloud("storage", "cp", "--no-clobber", str(path), url)
    return url
