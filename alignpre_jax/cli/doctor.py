"""The verb about this machine: doctor."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from alignpre_jax.cli.verb import JSON, Flag, Verb
from alignpre_jax.foundation import UserError, write_json

FREE_GB = 5.0  # of disk, below which a small study may not fit
DEVICES = """
import json, jax
devices = jax.devices()
print(json.dumps([devices[0].platform, devices[0].device_kind, len(devices), jax.process_count()]))
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` says what to do where something is wrong with it."""

    what: str
    state: Literal["ok", "missing", "note"]  # "note": it is not needed here, but good to know
    found: str
    fix: str = ""


def examine(workdir: str = "", bucket: str = "") -> Iterator[Finding]:
    """Looks at Python, packages, devices, disk and, where one is given, a bucket."""
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield from _packages()
    yield from _devices()
    yield _disk(workdir or ".")
    yield _git()
    yield from _clouds(bucket)


def _packages() -> Iterator[Finding]:
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array-record", "tokenizers"):
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "not installed", "pip install -e .")
    extras = {"libtpu": "tpu", "transformers": "hf", "lm_eval": "evals", "xmanager": "launch", "wandb": "wandb"}
    for module, extra in extras.items():
        there = importlib.util.find_spec(module) is not None
        fix = "" if there else f"pip install -e '.[{extra}]', where you want it"
        yield Finding(module, "ok" if there else "note", "installed" if there else "not installed", fix)


def _devices() -> Iterator[Finding]:
    """Asks in another process which devices JAX sees, because asking takes hold of the devices."""
    files = [name for name in ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/kfd") if Path(name).exists()]
    try:
        asked = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        fix = "another process may hold the devices; on a slice of several hosts, run it on all of them at once"
        yield Finding("devices", "missing", "JAX does not answer within three minutes", fix)
        return
    if asked.returncode:
        words = (asked.stderr.strip().splitlines() or [""])[-1][:200]
        yield Finding("devices", "missing", f"JAX finds none: {words}", "see whether another process holds them")
        return
    kind, name, count, processes = json.loads(asked.stdout.strip().splitlines()[-1])
    yield Finding("devices", "ok", f"{count} x {name} ({kind}), {processes} process(es)")
    if kind == "cpu" and files:
        extra = "gpu" if files[0] in ("/dev/nvidia0", "/dev/kfd") else "tpu"
        yield Finding(
            "accelerator", "missing", f"{files[0]} is there, JAX uses the CPU", f"pip install -e '.[{extra}]'"
        )


def _disk(folder: str) -> Finding:
    place = Path(folder).resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding("disk", "missing", f"{place}: {error.strerror}", "give a --workdir you can write to")
    found = f"{free:,.1f} GB free at {place}"
    if free < FREE_GB:
        return Finding(
            "disk", "missing", found, "free some, or give a --workdir elsewhere; `alignpre plan` shows sizes"
        )
    return Finding("disk", "ok", found)


def _git() -> Finding:
    if shutil.which("git"):
        return Finding("git", "ok", "there")
    return Finding("git", "note", "not there", "install git, or reports will not name the revision")


def _clouds(bucket: str) -> Iterator[Finding]:
    gcloud = shutil.which("gcloud")
    if not gcloud:
        state: Literal["missing", "note"] = "missing" if bucket else "note"
        yield Finding("gcloud", state, "not there", "install it to use TPUs: https://cloud.google.com/sdk/docs/install")
        return
    asked = subprocess.run(
        [gcloud, "config", "get-value", "project", "--quiet"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    project = asked.stdout.strip()
    fix = "" if project else "gcloud auth login && gcloud config set project ID"
    yield Finding("gcloud", "ok" if project else "note", f"project {project}" if project else "no project", fix)
    if bucket:
        yield _bucket(gcloud, bucket.removeprefix("gs://").partition("/")[0])


def _bucket(gcloud: str, name: str) -> Finding:
    """Writes a small object into a bucket, reads it and deletes it."""
    url = f"gs://{name}/.alignpre-doctor-{os.getpid()}"
    steps = (("write", ["cp", "-", url]), ("read", ["cat", url]), ("delete", ["rm", url]))
    for what, arguments in steps:
        done = subprocess.run([gcloud, "storage", *arguments], input="doctor\n", capture_output=True, text=True)
        if done.returncode:
            words = (done.stderr.strip().splitlines() or [""])[-1][:200]
            return Finding(
                "bucket", "missing", f"cannot {what} in gs://{name}: {words}", "see gcp/README.md, bucket.sh"
            )
    return Finding("bucket", "ok", f"gs://{name}: written, read, deleted")


def _doctor(given: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(header_style="", box=None)
    for column in ("", "", "found", "to do"):
        table.add_column(column, overflow="fold")
    findings = list(examine(given.workdir, given.bucket))
    marks = {"ok": "[green]ok[/green]", "missing": "[red]missing[/red]", "note": "[dim]-[/dim]"}
    for each in findings:
        table.add_row(marks[each.state], *map(escape, (each.what, each.found, each.fix)))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
    if given.json:
        write_json(given.json, [dataclasses.asdict(each) for each in findings])
    missing = [each for each in findings if each.state == "missing"]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(findings)} checks failed: {', '.join(each.what for each in missing)}",
            where="alignpre doctor",
            fix=missing[0].fix,
        )
    print("\nall that is needed is there")


VERBS = {
    "doctor": Verb(
        "looks whether this machine has what is needed, and says what is missing",
        "alignpre doctor --workdir=runs",
        (
            Flag("workdir", "", "folder that studies are to be in"),
            Flag("bucket", "", "gs:// bucket that is to be written to and read from"),
            JSON,
        ),
        _doctor,
        takes_config=False,
    ),
}
