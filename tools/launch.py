"""Launches an experiment: names it, packages the code, adds one job per arm and seed of every point of its sweep.

    python tools/launch.py --config=configs/studies/small_world.py --workdir=runs/sweep \
        --sweep='arms.aligned.add.midtrain.dose=0.1,0.3; stages.midtrain.schedule.peak=1e-3,2e-3'
    python tools/launch.py --config=configs/studies/pythia.py:1p4b --workdir=gs://my-bucket/pythia \
        --target=tpu_vm --type=v5litepod-64 --tier=spot --zone=us-west4-a
    python tools/launch.py status --config=... --workdir=...     # the state of all jobs
    python tools/launch.py delete --config=... --workdir=...     # gives machines back; files stay

A sweep may also be a function `sweep()` in the config file (see alignpre_jax/launch/sweep.py). The same command goes on
where an earlier one stopped. `xmanager launch tools/launch.py -- --xmanager ...` runs it as an XManager experiment.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from alignpre_jax import launch
from alignpre_jax.cli.terminal import Terminal
from alignpre_jax.foundation import UserError, read_json
from alignpre_jax.launch import clouds, remote, table, tpu_vm
from alignpre_jax.launch.cloud import Tool, read_object
from alignpre_jax.launch.local import lock_folder
from alignpre_jax.report import collect, write_metrics, write_report

CHECKOUT = Path(__file__).resolve().parents[1]
MISTAKE, INTERRUPTED = 2, 75
FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", help_string="FILE[:ARG], a study; any value in it: --config.key=value")
flags.DEFINE_string("workdir", "", "local: the experiment's folder; clouds: gs://BUCKET/FOLDER")
flags.DEFINE_enum("target", "local", ["local", "tpu_vm", "xpk", "skypilot"], "where jobs run")
flags.DEFINE_string("sweep", "", "KEY=VALUE,VALUE; KEY=VALUE,... in the place of the config file's sweep()")
flags.DEFINE_bool("dry_run", False, "print what would be run, booked or submitted")
flags.DEFINE_bool("xmanager", False, "add the jobs to an XManager experiment (pip install 'alignpre_jax[launch]')")
# Flags of the target on this machine.
flags.DEFINE_integer("workers", 0, "local: jobs at a time; 0: one per core", lower_bound=0)
flags.DEFINE_integer(
    "hosts", 1, "local: processes that make one job together, as the hosts of a slice do", lower_bound=1
)
flags.DEFINE_integer("attempts", 2, "local: how often a job is tried whose process dies", lower_bound=1)
# Flags of the targets in a cloud.
flags.DEFINE_string("type", "", "TPU slice, e.g. v5litepod-16")
flags.DEFINE_integer("slices", 1, "slices of each job", lower_bound=1)
flags.DEFINE_enum("tier", "on-demand", ["on-demand", "spot", "reserved"], "how slices are booked")
flags.DEFINE_string("zone", "", "default: that of gcloud config")
flags.DEFINE_string("project", "", "default: that of gcloud config")
flags.DEFINE_string("service_account", "", "tpu_vm: what the machines act as; see gcp/bucket.sh")
flags.DEFINE_string("image", "", "xpk: the container image; see gcp/Dockerfile")
flags.DEFINE_string("cluster", "", "xpk: the GKE cluster")
flags.DEFINE_string("launched", "runs/launched", "clouds: folder on this machine that says what was launched")
flags.DEFINE_integer("parallel", 8, "clouds: jobs at a time", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the script; see the top of the file."""
    try:
        sys.exit(_main(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        print("stopped; the same command goes on (machines in a cloud stay at work: launch.py delete)", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _main(argv: Sequence[str]) -> int:
    verbs = {"launch": _launch, "status": _status, "delete": _delete}
    what = argv[1] if len(argv) > 1 else "launch"
    if what not in verbs or len(argv) > 2:
        raise UserError(f"cannot do {shlex.join(argv[1:])}", where="launch.py", fix=f"one of: {', '.join(verbs)}")
    for name in ("config", "workdir"):
        if not FLAGS[name].value:
            raise UserError(f"no --{name}", where=f"--{name}", fix="see the top of tools/launch.py")
    remote_url = FLAGS.workdir if FLAGS.target != "local" else ""
    gcloud = Tool("gcloud", dry_run=FLAGS.dry_run)
    root = _skeleton(remote_url, gcloud) if remote_url else Path(FLAGS.workdir)
    file = config_flags.get_config_filename(FLAGS["config"])
    points = launch.parse_sweep(FLAGS.sweep) if FLAGS.sweep else launch.load_sweep(file)
    experiment = launch.plan_experiment(FLAGS.config, points, root, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    verbs[what](experiment, remote_url, gcloud)
    return 0


def _launch(experiment: launch.Experiment, url: str, gcloud: Tool) -> None:
    console = _console()
    if not url and FLAGS.dry_run:
        for bundle in launch.bundles(experiment).values():
            print(f"{bundle.id}: {' '.join(bundle.tasks)}")
        return
    if not url and not FLAGS.xmanager:
        root = Path(experiment.root)
        with Terminal() as report, lock_folder(root, report) as lock:
            launch.run_tasks(
                experiment.tasks,
                root,
                report,
                workers=FLAGS.workers,
                processes=FLAGS.hosts,
                keep_going=True,
                attempts=FLAGS.attempts,
                changed=table.StateFile(experiment.root),
                locks=(lock,),
            )
        for space in experiment.spaces.values():
            write_report(collect(space), space.root)
            write_metrics(space)
        console.print(table.summary(experiment))
        for space in experiment.spaces.values():
            print(f"report: {space.root / 'report.html'}")
        return
    target = _target(url, gcloud)
    if url:
        remote.upload(experiment, url, gcloud)
    if FLAGS.xmanager:
        from alignpre_jax.launch.xmanager import run_xmanager

        run_xmanager(experiment, url, target, FLAGS.parallel)
        return
    with Terminal() as report:
        remote.run_remote(
            experiment,
            url,
            target,
            report,
            parallel=FLAGS.parallel,
            dry_run=FLAGS.dry_run,
            changed=lambda board: _follow(board, experiment, console),
        )


def _follow(board: Any, experiment: launch.Experiment, console: Console) -> None:
    table.StateFile(experiment.root)(board)
    labels = {name: bundle.label for name, bundle in launch.bundles(experiment).items()}
    for name, entry in board.entries.items():
        line = f"{labels[name]}: {entry.state} {entry.note}".rstrip()
        if _SAID.get(name, "waiting") != line and entry.state != "waiting":
            console.print(line, markup=False, soft_wrap=True)
            _SAID[name] = line


_SAID: dict[str, str] = {}  # what was last printed of each bundle


def _status(experiment: launch.Experiment, url: str, gcloud: Tool) -> None:
    console = _console()
    if not url:
        console.print(table.local_table(experiment))
        return
    labels = {name: bundle.label for name, bundle in launch.bundles(experiment).items()}
    path = experiment.root / table.STATE
    states = {name: {"state": "waiting"} for name in labels} | (read_json(path) if path.exists() else {})
    for name, entry in states.items():
        if (read_object(gcloud, f"{url}/jobs/{name}/exit") or "").strip() == "0":
            entry["state"] = "done"
    console.print(table.board_table(experiment.name, states, labels))


def _delete(experiment: launch.Experiment, url: str, gcloud: Tool) -> None:
    if not url:
        raise UserError("nothing is booked for --target=local", where="--target", fix="delete the folder if you want")
    target = _target(url, gcloud)
    for name in launch.bundles(experiment):
        target.delete(name)
        print(f"deleted: {name}")


def _console() -> Console:
    """A console that is 160 columns wide where the output is not a terminal, so that tables are not squeezed."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _target(url: str, gcloud: Tool) -> clouds.Target:
    """The target that the flags describe."""
    if not url:
        raise UserError("--xmanager adds jobs in a cloud", where="--target", fix="give tpu_vm, xpk or skypilot")
    if not FLAGS.type:
        raise UserError(
            "which TPU?", where="--type", fix="give a slice, e.g. --type=v5litepod-16; `alignpre plan` says what fits"
        )
    bucket, _ = clouds.split_url(url)
    where = {"zone": FLAGS.zone, "project": FLAGS.project}
    if FLAGS.target == "tpu_vm":
        slices = tpu_vm.Slices(FLAGS.type, FLAGS.slices, FLAGS.tier, service_account=FLAGS.service_account, **where)
        startup = (CHECKOUT / "gcp" / "startup.sh").read_text()
        return clouds.TpuVm(slices, f"{url}/jobs", remote.package(CHECKOUT, url, gcloud), bucket, startup, gcloud)
    if FLAGS.target == "xpk":
        for name in ("cluster", "image"):
            if not FLAGS[name].value:
                raise UserError(f"no --{name}", where=f"--{name}", fix="see gcp/README.md, GKE")
        slices_ = clouds.GkeSlices(FLAGS.type, FLAGS.slices, **where)
        return clouds.Xpk(FLAGS.cluster, slices_, FLAGS.image, xpk=Tool("xpk", FLAGS.dry_run))
    return clouds.SkyPilot(FLAGS.type, bucket, FLAGS.tier == "spot", sky=Tool("sky", FLAGS.dry_run))


def _skeleton(url: str, gcloud: Tool) -> Path:
    """Makes the folder on this machine that says what is to be done in a bucket's folder."""
    clouds.split_url(url)
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.removeprefix("gs://")).strip("-")
    root = Path(FLAGS.launched) / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"
    root.mkdir(parents=True, exist_ok=True)
    text = read_object(gcloud, f"{url}/sweep.json")
    if text:
        (root / "sweep.json").write_text(text)
    return root


if __name__ == "__main__":
    app.run(main)
