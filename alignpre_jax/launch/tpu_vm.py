"""This module books TPU VMs for a job as queued resources, watches over them, and gives them back.

The job starts by itself when its slices come up (gcp/startup.sh is their startup script), so it does not need this
process: closed and started again, the babysitter finds the slices by their name and goes on watching. In the job's
place in the bucket the slices leave `exit`, the job's exit status once it is final, `heartbeat`, the Unix seconds of
the last sign of life, and `log-*`.

https://docs.cloud.google.com/tpu/docs/queued-resources
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from alignpre_jax.foundation import UserError, get_accelerator
from alignpre_jax.launch.cloud import Backoff, CloudError, Tool, read_object

# All states of a queued resource but ACTIVE, by what they mean for whoever waits for it.
COMING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "STATE_UNSPECIFIED")
LEAVING = ("SUSPENDING", "DELETING")
LOST = ("SUSPENDED", "FAILED")  # such a request never becomes active again: delete it and make it anew
RESTART = "sudo systemctl restart --no-block google-startup-scripts.service"


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices that are booked.

    Attributes:
      type: the type of each slice, such as "v5litepod-16".
      slices: the number of slices, which the data-centre network joins.
      tier: "on-demand", "spot" (cheaper, may be taken away) or "reserved".
      zone: the zone of the slices; "" for the zone of `gcloud config`.
      project: the project that pays for them; "" for the project of `gcloud config`.
      service_account: the account that the machines act as; "" for the project's default.
      runtime: the version of the system image; "" for the one that the type takes.
    """

    type: str
    slices: int = 1
    tier: Literal["on-demand", "spot", "reserved"] = "on-demand"
    zone: str = ""
    project: str = ""
    service_account: str = ""
    runtime: str = ""

    def __post_init__(self):
        known = get_accelerator(self.type)
        if known.runtime == "-" and not self.runtime:
            raise UserError(
                f"{self.type} is booked through GKE only", where="--type", fix="use --target=xpk or the JobSet manifest"
            )
        if self.slices < 1:
            raise UserError(f"{self.slices} slices", where="--slices", fix="give 1 or more")

    def place(self) -> list[str]:
        """Flags that say where."""
        given = {"zone": self.zone, "project": self.project}
        return [f"--{name}={value}" for name, value in given.items() if value]


@dataclasses.dataclass(frozen=True)
class Patience:
    """These numbers say when the babysitter acts, and when it gives up.

    Attributes:
      poll: the seconds between two looks.
      start_minutes: how long an active slice may take to show its first sign of life.
      silent_minutes: how long it may be silent after that; then the startup script is started again.
      kicks: how often the script is started again before the slices are made anew.
      barren: after so many requests in a row without a sign of life, the babysitter gives up.
      quota: after so many refusals in a row for lack of quota or capacity, it gives up.
      troubles: after so many failed calls in a row, it gives up.
    """

    poll: float = 30.0
    start_minutes: float = 30.0
    silent_minutes: float = 15.0
    kicks: int = 3
    barren: int = 5
    quota: int = 12
    troubles: int = 20


def babysit(
    name: str,
    slices: Slices,
    startup: str,
    place: str,
    say: Callable[[str], None] = lambda note: None,
    *,
    gcloud: Tool | None = None,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> None:
    """Sees a job through to its end, on as many TPUs as it takes; none is left when it returns or gives up.

    Args:
      name: the name of the queued resource; the same name means the same job.
      slices: what to book.
      startup: the startup script of every host.
      place: the gs:// folder where the job leaves `exit` and `heartbeat`.
      say: is told what goes on.
      gcloud: the tool that is called.
      patience: when to act and when to give up; see `Patience`.
      sleep: waits for a number of seconds.
      now: returns the time in Unix seconds.

    Raises:
      UserError: the job ended with another status than 0, or its slices cannot be had. Without a valid login the
        slices cannot be deleted either, and the message says so.
    """
    _Babysitter(name, slices, startup, place, say, gcloud or Tool("gcloud"), patience or Patience(), sleep, now).watch()


def create(name: str, slices: Slices, startup: str, gcloud: Tool) -> None:
    """Asks for the slices and returns at once.

    Raises:
      CloudError: the request was refused.
    """
    runtime = slices.runtime or get_accelerator(slices.type).runtime
    nodes = [f"--node-id={name}"] if slices.slices == 1 else [f"--node-prefix={name}", f"--node-count={slices.slices}"]
    tier = {"on-demand": [], "spot": ["--spot"], "reserved": ["--reserved"]}[slices.tier]
    account = [f"--service-account={slices.service_account}"] if slices.service_account else []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "startup.sh"
        script.write_text(startup)
        gcloud(
            *("compute", "tpus", "queued-resources", "create", name, *nodes),
            *(f"--accelerator-type={slices.type}", f"--runtime-version={runtime}", *tier, *account),
            *(f"--metadata-from-file=startup-script={script}", *slices.place(), "--quiet"),
        )


def describe(name: str, slices: Slices, gcloud: Tool) -> tuple[str, str]:
    """The pair (state, reason) of the request; its state is "" where there is no such request.

    Raises:
      CloudError: the call failed.
    """
    try:
        text = gcloud("compute", "tpus", "queued-resources", "describe", name, "--format=json(state)", *slices.place())
    except CloudError as error:
        if error.kind == "missing":
            return "", ""
        raise
    state: dict[str, Any] = json.loads(text or "{}").get("state", {})
    reason = state.get("failedData", {}).get("error", {}).get("message", "")
    return str(state.get("state", "STATE_UNSPECIFIED")), str(reason or state.get("stateInitiator", ""))


def delete(name: str, slices: Slices, gcloud: Tool) -> None:
    """Gives the slices back, whatever state they are in; does nothing where they are not there.

    Raises:
      CloudError: the call failed.
    """
    try:
        gcloud("compute", "tpus", "queued-resources", "delete", name, "--force", "--async", "--quiet", *slices.place())
    except CloudError as error:
        if error.kind != "missing":
            raise


def ssh_all(name: str, slices: Slices, command: str, gcloud: Tool) -> None:
    """Runs a line of shell on every host of every slice.

    Raises:
      CloudError: a connection was lost, or the command failed.
    """
    for index in range(slices.slices):
        node = name if slices.slices == 1 else f"{name}-{index}"
        gcloud("compute", "tpus", "tpu-vm", "ssh", node, "--worker=all", f"--command={command}", *slices.place())


@dataclasses.dataclass
class _Babysitter:
    name: str
    slices: Slices
    startup: str
    place: str
    say: Callable[[str], None]
    gcloud: Tool
    patience: Patience
    sleep: Callable[[float], None]
    now: Callable[[], float]
    made: int = 0  # requests so far
    barren: int = 0  # the last requests in a row that never showed a sign of life
    refused: int = 0
    kicked: int = 0
    since: float = 0.0  # when the slices were first seen active or last kicked; 0: they are not active
    created: float = 0.0  # when the slices were requested: an older heartbeat is that of earlier slices

    def watch(self) -> None:
        trouble = Backoff(self.patience.poll, 900.0, self.sleep)
        shortage = Backoff(4 * self.patience.poll, 3600.0, self.sleep)
        self.created = self.now()
        self._forget_failure()
        while True:
            try:
                if (status := self._exit_status()) is not None:
                    self._end(status)
                    return
                self._step()
                trouble.reset()
                if not self.refused:
                    shortage.reset()
                self.sleep(self.patience.poll)
            except CloudError as error:
                self._bear(error, trouble, shortage)

    def _step(self) -> None:
        """Looks at the state of the request and does what the state calls for."""
        state, reason = describe(self.name, self.slices, self.gcloud)
        if state == "ACTIVE":
            self._check_life()
        elif state == "":
            if self.made and self.barren >= self.patience.barren:
                raise self._hopeless(f"{self.barren} requests in a row came to nothing")
            create(self.name, self.slices, self.startup, self.gcloud)
            self.made, self.barren, self.refused = self.made + 1, self.barren + 1, 0
            self.since, self.kicked, self.created = 0.0, 0, self.now()
            self.say("requested" if self.made == 1 else f"requested again, number {self.made}")
        elif state in LOST:
            self.say(f"{state}{f' ({reason})' if reason else ''}: deleting, then asking again")
            delete(self.name, self.slices, self.gcloud)
            if state == "FAILED" and self.barren >= self.patience.barren:
                raise self._hopeless(f"{self.barren} requests in a row came to nothing, the last: {reason}")
        else:
            self.say(state if state in COMING + LEAVING else f"{state}, a state that is not known here; waiting")

    def _check_life(self) -> None:
        """Restarts the startup script of active slices that show no sign of life, or deletes them in the end."""
        now = self.now()
        self.since = self.since or now
        text = read_object(self.gcloud, f"{self.place}/heartbeat")
        beat = float(text) if text and text.strip().replace(".", "", 1).isdigit() else 0.0
        if beat >= self.created:
            self.barren = 0
        minutes = self.patience.silent_minutes if beat >= self.created else self.patience.start_minutes
        if now - max(beat, self.since) <= 60 * minutes:
            self.say("ACTIVE" if beat >= self.created else "ACTIVE, starting")
            return
        if self.kicked >= self.patience.kicks:
            self.say(f"ACTIVE but silent after {self.kicked} new starts: deleting, then asking again")
            delete(self.name, self.slices, self.gcloud)
            return
        self.kicked, self.since = self.kicked + 1, now
        self.say(f"ACTIVE but silent: startup script started again ({self.kicked} of {self.patience.kicks})")
        ssh_all(self.name, self.slices, RESTART, self.gcloud)

    def _bear(self, error: CloudError, trouble: Backoff, shortage: Backoff) -> None:
        """Waits where another try can help; raises a `UserError` where it cannot."""
        words = error.text.splitlines()[-1][:300]
        if error.kind == "auth":
            raise UserError(
                f"gcloud is not allowed to do this: {words}",
                where=self.name,
                fix="log in (gcloud auth login) with the rights that gcp/README.md lists and launch again. If a TPU is "
                f"up, it stays up until then: gcp/tpu.sh delete {self.name}",
            ) from error
        if error.kind == "exists":
            return
        if error.kind == "invalid":
            raise self._hopeless(words) from error
        if error.kind == "quota":
            self.refused += 1
            self.say(f"no quota or capacity ({self.refused} of {self.patience.quota}): {words}")
            if self.refused >= self.patience.quota:
                raise self._hopeless(f"refused {self.refused} times: {words}") from error
            shortage.wait()
            return
        if trouble.tries >= self.patience.troubles:
            fix = f"see to the network and launch again; a TPU that is up stays up: gcp/tpu.sh delete {self.name}"
            raise UserError(f"{trouble.tries} calls in a row failed: {words}", where=self.name, fix=fix) from error
        self.say(f"a call failed, tried again: {words}")
        trouble.wait()

    def _exit_status(self) -> int | None:
        text = read_object(self.gcloud, f"{self.place}/exit")
        return int(text) if text and text.strip().isdigit() else None

    def _forget_failure(self) -> None:
        """Removes an exit status other than 0, which an earlier launch has left: this launch is to try again."""
        try:
            if self._exit_status():
                self.gcloud("storage", "rm", f"{self.place}/exit")
        except CloudError as error:
            if error.kind == "auth":
                self._bear(error, Backoff(), Backoff())
            # Anything else shows again in the loop, which waits and tries once more.

    def _end(self, status: int) -> None:
        delete(self.name, self.slices, self.gcloud)
        self.say("done, TPU deleted" if status == 0 else f"ended with status {status}, TPU deleted")
        if status:
            raise UserError(
                f"the job ended with status {status}",
                where=f"{self.place}/log-0-0",
                fix=f"read the log (gcloud storage cat {self.place}/log-0-0), mend the cause and launch again",
            )

    def _hopeless(self, what: str) -> UserError:
        return UserError(
            f"no TPU for {self.name}: {what}",
            where="--type, --zone, --tier, the project's quota",
            fix="change them and launch again; the job's folder is kept",
        )
