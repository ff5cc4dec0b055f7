"""A target in the cloud brings a bundle of tasks onto TPUs, watches over it to its end, and gives the TPUs back."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from alignpre_jax.foundation import UserError
from alignpre_jax.launch import tpu_vm
from alignpre_jax.launch.cloud import Backoff, CloudError, Tool
from alignpre_jax.launch.manifests import skypilot, to_yaml

GCLOUD, XPK, SKY = Tool("gcloud"), Tool("xpk"), Tool("sky")
PATIENCE = tpu_vm.Patience()
MOUNT = "/mnt/alignpre"
Say = Callable[[str], None]


class Target(Protocol):
    """A target runs commands on TPUs, each under a name."""

    def run(self, name: str, command: Sequence[str], say: Say) -> None:
        """Sees the command through to its end, or goes on with that of the same name. Raises UserError if it fails."""

    def delete(self, name: str) -> None:
        """Gives back all machines that have this name; the files in the bucket stay."""


@dataclasses.dataclass(frozen=True)
class TpuVm:
    """This target books TPU VMs as queued resources; see `tpu_vm`.

    Attributes:
      slices: what to book for each bundle.
      place: a gs:// folder, in which each name gets a folder.
      package: the gs:// URL of the source archive.
      bucket: the bucket that is mounted on every host.
      startup: the text of gcp/startup.sh.
    """

    slices: tpu_vm.Slices
    place: str
    package: str
    bucket: str
    startup: str
    gcloud: Tool = GCLOUD
    patience: tpu_vm.Patience = PATIENCE

    def run(self, name: str, command: Sequence[str], say: Say) -> None:
        """See `Target`."""
        script = self.script(name, command)
        if self.gcloud.dry_run:
            tpu_vm.create(name, self.slices, script, self.gcloud)
            return
        tpu_vm.babysit(
            name, self.slices, script, f"{self.place}/{name}", say, gcloud=self.gcloud, patience=self.patience
        )

    def delete(self, name: str) -> None:
        """See `Target`."""
        tpu_vm.delete(name, self.slices, self.gcloud)

    def script(self, name: str, command: Sequence[str]) -> str:
        """The startup script of the hosts."""
        values = {"PLACE": f"{self.place}/{name}", "PACKAGE": self.package, "BUCKET": self.bucket, "MOUNT": MOUNT}
        lines = [f"{key}={shlex.quote(value)}" for key, value in values.items()]
        first, rest = self.startup.split("\n", 1)
        return "\n".join([first, *lines, f"COMMAND=({shlex.join(command)})", rest])


@dataclasses.dataclass(frozen=True)
class Xpk:
    """This target submits workloads to a GKE cluster that xpk made (https://github.com/AI-Hypercomputer/xpk).

    The bucket is attached to the cluster once, with `xpk storage attach`; see gcp/README.md.
    """

    cluster: str
    slices: GkeSlices
    image: str
    restarts: int = 20
    xpk: Tool = XPK
    poll: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, name: str, command: Sequence[str], say: Say) -> None:
        """See `Target`."""
        name = name[-38:].lstrip("-")  # xpk adds to it, and Kubernetes allows 63 letters
        if not self._has(name, "EVERYTHING") or self._has(name, "FAILED"):
            if not self.xpk.dry_run and self._has(name, "FAILED"):
                self.delete(name)
            self.xpk(
                *("workload", "create", f"--workload={name}", f"--tpu-type={self.slices.type}"),
                *(f"--num-slices={self.slices.slices}", f"--docker-image={self.image}"),
                *(f"--command={shlex.join(command)}", f"--max-restarts={self.restarts}", *self._place()),
            )
            say("submitted")
        if self.xpk.dry_run:
            return
        trouble = Backoff(self.poll, 900.0, self.sleep)
        while True:
            try:
                if self._has(name, "SUCCESSFUL"):
                    return
                if self._has(name, "FAILED"):
                    raise UserError(
                        f"the workload {name} has failed",
                        where=name,
                        fix=f"read its log: kubectl logs -l xpk.google.com/workload={name}",
                    )
                say("RUNNING" if self._has(name, "RUNNING") else "QUEUED")
                trouble.reset()
                self.sleep(self.poll)
            except CloudError as error:
                _bear(error, name, trouble, say)

    def delete(self, name: str) -> None:
        """See `Target`."""
        self.xpk("workload", "delete", f"--workload={name[-38:].lstrip('-')}", *self._place())

    def _has(self, name: str, status: str) -> bool:
        found = self.xpk(
            "workload", "list", f"--filter-by-job=^{name}$", f"--filter-by-status={status}", *self._place()
        )
        return any(line.split()[:1] == [name] for line in found.splitlines())

    def _place(self) -> list[str]:
        return [f"--cluster={self.cluster}", *self.slices.place()]


@dataclasses.dataclass(frozen=True)
class GkeSlices:
    """The slices that a GKE workload asks for; they may be of types that cannot be booked as TPU VMs."""

    type: str
    slices: int = 1
    zone: str = ""
    project: str = ""

    def place(self) -> list[str]:
        """Flags that say where."""
        given = {"zone": self.zone, "project": self.project}
        return [f"--{name}={value}" for name, value in given.items() if value]


# The states that `sky jobs queue` prints.
_SKY_DONE = ("SUCCEEDED",)
_SKY_FAILED = ("FAILED", "FAILED_SETUP", "FAILED_PRECHECKS", "FAILED_NO_RESOURCE", "FAILED_CONTROLLER", "CANCELLED")
_SKY_ALIVE = ("PENDING", "SUBMITTED", "STARTING", "RUNNING", "RECOVERING", "CANCELLING")


@dataclasses.dataclass(frozen=True)
class SkyPilot:
    """This target submits managed jobs to SkyPilot, which moves and restarts them when they are preempted."""

    type: str
    bucket: str
    spot: bool = False
    sky: Tool = SKY
    poll: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, name: str, command: Sequence[str], say: Say) -> None:
        """See `Target`."""
        task = to_yaml(skypilot(name, self.type, command, self.bucket, spot=self.spot, mount=MOUNT))
        if self.sky.dry_run:
            print(task)
        if self._state(name) not in (*_SKY_ALIVE, *_SKY_DONE):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "task.yaml"
                path.write_text(task)
                self.sky("jobs", "launch", f"--name={name}", "--detach-run", "--yes", str(path))
            say("submitted")
        if self.sky.dry_run:
            return
        trouble = Backoff(self.poll, 900.0, self.sleep)
        while True:
            try:
                state = self._state(name)
                if state in _SKY_DONE:
                    return
                if state in _SKY_FAILED:
                    fix = f"read its log: sky jobs logs --name={name}"
                    raise UserError(f"the job {name} is {state}", where=name, fix=fix)
                say(state or "SUBMITTED")
                trouble.reset()
                self.sleep(self.poll)
            except CloudError as error:
                _bear(error, name, trouble, say)

    def delete(self, name: str) -> None:
        """See `Target`."""
        self.sky("jobs", "cancel", f"--name={name}", "--yes")

    def _state(self, name: str) -> str:
        """The state of the newest job of this name, which is listed first; "" where there is no such job."""
        for line in self.sky("jobs", "queue").splitlines():
            words = line.split()
            if name in words:
                return next((word for word in words if word in _SKY_DONE + _SKY_FAILED + _SKY_ALIVE), "")
        return ""


def split_url(url: str) -> tuple[str, str]:
    """Splits gs://BUCKET/FOLDER into (bucket, folder).

    Raises:
      UserError: the URL does not have this form.
    """
    found = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]+)/(.+?)/?", url)
    if not found:
        raise UserError(f"{url!r} is not a folder in a bucket", where="--workdir", fix="give gs://BUCKET/FOLDER")
    return found[1], found[2]


def _bear(error: CloudError, name: str, trouble: Backoff, say: Say) -> None:
    words = error.text.splitlines()[-1][:300]
    if error.kind in ("auth", "invalid") or trouble.tries >= 20:
        fix = (
            "log in and launch again; the job itself goes on"
            if error.kind == "auth"
            else "mend the cause and launch again"
        )
        raise UserError(f"a call about {name} failed: {words}", where=name, fix=fix) from error
    say(f"a call failed, tried again: {words}")
    trouble.wait()
