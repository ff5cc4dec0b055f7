"""Sees one command through to its end on TPU VMs, however often they are taken away. Called by `tpu.sh babysit`.

The command runs on every host in the packaged checkout, with the bucket mounted as /mnt/alignpre. It has to go on where
it stopped when it is started again, as every `alignpre` command does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alignpre_jax.foundation import UserError
from alignpre_jax.launch import clouds, remote, tpu_vm
from alignpre_jax.launch.cloud import Tool

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """The script; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the queued resource; the same name is the same job")
    parser.add_argument("--type", required=True)
    parser.add_argument("--folder", required=True, help="gs:// folder; gets jobs/NAME/{exit,heartbeat,log-*}")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--tier", default="")
    parser.add_argument("--account", default="")
    parser.add_argument("--zone", default="")
    parser.add_argument("--project", default="")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    gcloud = Tool("gcloud", dry_run=given.dry_run)
    try:
        bucket, _ = clouds.split_url(given.folder)
        where = {"zone": given.zone, "project": given.project, "service_account": given.account}
        slices = tpu_vm.Slices(given.type, given.slices, given.tier or "on-demand", **where)
        startup = (CHECKOUT / "gcp" / "startup.sh").read_text()
        package = remote.package(CHECKOUT, given.folder, gcloud)
        target = clouds.TpuVm(slices, f"{given.folder}/jobs", package, bucket, startup, gcloud)
        target.run(given.name, given.command, lambda note: print(f"{time.strftime('%H:%M:%S')} {note}", flush=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped watching; the machines stay at work, the same command watches again", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
