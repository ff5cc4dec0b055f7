"""Command-line tools of clouds that write down what they are asked and play back what they are told."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

# A call answers with the first line of the file of its kind, which is then dropped unless it is the last; a line
# "!TEXT" is an error. The kind is the first pattern of $FAKE/kinds that the arguments contain.
TOOL = r"""#!/usr/bin/env bash
{ printf '%q ' "$0"; printf '%q ' "$@"; printf '\n'; } | sed "s,^[^ ]*/,," >> "$FAKE/calls"
arguments="$*"
for argument in "$@"; do
  case $argument in
    --metadata-from-file=startup-script=*) cp "${argument#*=*=}" "$FAKE/startup" ;;
    *.yaml) cp "$argument" "$FAKE/task.yaml" ;;
  esac
done
while IFS=$'\t' read -r kind pattern; do
  [[ $arguments == *$pattern* ]] || continue
  answers=$FAKE/answers-$kind
  [[ -s $answers ]] || exit 0
  IFS= read -r line < "$answers"
  (($(wc -l < "$answers") > 1)) && sed -i 1d "$answers"
  [[ $line == !* ]] && { printf '%s\n' "${line#!}" >&2; exit 1; }
  printf '%b\n' "$line"
  exit 0
done < "$FAKE/kinds"
exit 0
"""
KINDS = {
    "create": "queued-resources create",
    "describe": "queued-resources describe",
    "delete": "queued-resources delete",
    "ssh": "tpu-vm ssh",
    "exit": "/exit",
    "heartbeat": "/heartbeat",
    "config": "config.json",
    "sweep": "sweep.json",
    "xcreate": "workload create",
    "xdelete": "workload delete",
    "EVERYTHING": "--filter-by-status=EVERYTHING",
    "SUCCESSFUL": "--filter-by-status=SUCCESSFUL",
    "FAILED": "--filter-by-status=FAILED",
    "RUNNING": "--filter-by-status=RUNNING",
    "launch": "jobs launch",
    "queue": "jobs queue",
}
MISSING = "!ERROR: (gcloud.storage.cat) The following URLs matched no objects or files"
GONE = "!ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found."


class Fake:
    """gcloud, xpk and sky in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in ("gcloud", "xpk", "sky"):
            (folder / "bin" / name).write_text(TOOL)
            (folder / "bin" / name).chmod(0o755)
        (folder / "kinds").write_text("".join(f"{kind}\t{pattern}\n" for kind, pattern in KINDS.items()))
        (folder / "calls").write_text("")
        self.answer(exit=[MISSING], heartbeat=[MISSING], config=[MISSING], sweep=[MISSING])
        self.environment = {"FAKE": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}

    def answer(self, **answers: list[str]) -> None:
        """What calls of a kind answer, one after the other; the last one for good."""
        for kind, lines in answers.items():
            assert kind in KINDS, kind
            (self.folder / f"answers-{kind}").write_text("".join(line + "\n" for line in lines))

    def calls(self, kind: str = "") -> list[list[str]]:
        """All calls, or those of a kind."""
        found = [shlex.split(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [call for call in found if not kind or KINDS[kind] in " ".join(call)]


def states(*names: str) -> list[str]:
    """Answers of `describe`."""
    return [name if name.startswith("!") else f'{{"state": {{"state": "{name}"}}}}' for name in names]
