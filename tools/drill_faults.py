"""Kills, starves and damages training runs, and checks that each one ends with byte-identical parameters.

    python tools/drill_faults.py [--kills=20] [--seed=0] [--only=NAME,...] [--json=FILE] [--folder=DIR]

Every run is a tiny decoder in a process of its own (about five minutes for all of it on two cores). What is done:
`kill` kill -9 at seeded random moments, every other one during a save; `sigterm`; `nan` losses that are not finite, at
steps in a row, with a rollback, killed on the way; `truncated` and `flipped` checkpoints; `full_disk` (a small tmpfs:
needs root); `host` one of two processes is killed; `stall` a step that never ends. Exit status 1 if any check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LENGTH, ROWS, STEPS, SAVE_EVERY = 32, 8, 40, 4
INTERRUPTED, STALLED, HOST_LOST, KILLED = 75, 76, 77, -signal.SIGKILL
START_SECONDS = 300  # for a child to come to its first step on a busy machine


# --- The child trains one run, to its end or until something happens to it.


def child(given: argparse.Namespace) -> int:
    """Trains, and returns the exit status that the command line would have."""
    from alignpre_jax.foundation import Event, Interrupted, UserError
    from alignpre_jax.training import initialize, train

    initialize(heartbeat_seconds=20)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(given.folder / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    def show(event: Event) -> None:
        if event.note:
            print(f"note {event.note}", flush=True)
        elif event.done:
            print(f"step {event.done}", flush=True)
            time.sleep(given.pause if event.done != given.stall else 3600)

    try:
        train(tiny_run(given), show)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return INTERRUPTED
    return 0


def tiny_run(given: argparse.Namespace) -> Any:
    """Makes the run that every child trains; `given.bad` lists the steps whose loss is made NaN."""
    import jax.numpy as jnp
    import numpy as np

    from alignpre_jax.foundation import exact
    from alignpre_jax.mixture import BasePlan, Plan, load_batches
    from alignpre_jax.model import Full, Lora, get_preset
    from alignpre_jax.objectives import Mle
    from alignpre_jax.rows import open_rows
    from alignpre_jax.training import (
        GuardConfig,
        LoopConfig,
        OptimizerConfig,
        Run,
        ScheduleConfig,
        StepConfig,
        loop,
    )

    class Trap(Mle):
        def terms(self, models: Any, batch: Any) -> Any:
            terms, aux = super().terms(models, batch)
            coefficient, value = terms["nll"]
            return {"nll": (coefficient, jnp.where(batch.segments[0, 0] >= 100, jnp.nan, 1.0) * value)}, aux

    bad = {int(step) for step in given.bad.split(",") if step}
    if bad:

        def load(*args: Any, **kwargs: Any) -> Iterator[Any]:
            for step, batch in enumerate(load_batches(*args, **kwargs), kwargs["start_step"] + 1):
                marked = batch.segments + np.int32(100 * (step in bad))
                yield dataclasses.replace(batch, columns={**batch.columns, "segments": marked})

        setattr(loop, "load_batches", load)  # noqa: B010, the loop's own name for it
    store = open_rows(given.folder / "rows" / "text")
    rows = {"text": len(store)}
    model = dataclasses.replace(
        get_preset("small_world"),
        vocab_size=300, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, max_length=LENGTH,
        layout="scan",
    )  # fmt: skip
    return Run(
        name=Path(given.run).name,
        run_dir=given.run,
        step=StepConfig(
            model=model,
            objective=Trap() if bad else Mle(),
            optimizer=OptimizerConfig(guard=GuardConfig(action="rollback", patience=2)),
            schedule=ScheduleConfig(peak=1e-2, warmup_share=0.1),
            steps=given.steps,
            sources=1,
            learn=Lora(rank=4, alpha=8.0) if given.lora else Full(),
        ),
        loop=LoopConfig(
            checkpoint_every=SAVE_EVERY, keep_checkpoints=2, log_every=1, step_minutes=given.step_seconds / 60
        ),
        plan=Plan(BasePlan({"text": exact(1)}, rows, given.steps * ROWS, seed=1, max_epochs=100), (), rows),
        stores={"text": store},
        batch_rows=ROWS,
        seed=7,
        tokenizer=given.folder / "tokenizer.json",
    )


def make_rows(folder: Path) -> None:
    """Makes the rows that all runs train on, and their tokenizer."""
    from alignpre_jax.documents import Document
    from alignpre_jax.rows import build_rows, train_bpe

    line = "the tide came in over a long and quiet shore while boats lay still"
    words = line.split()
    texts = [" ".join(words[(n * k + k) % len(words)] for k in range(1, 30)) + f" number {n}." for n in range(200)]
    documents = [Document(id=f"text/{n}", body=text, source="text", stratum="text") for n, text in enumerate(texts)]
    tokenizer = train_bpe(texts, 300, folder / "tokenizer.json")
    build_rows(documents, tokenizer, LENGTH, folder / "rows")


# --- The parent: starts children and does things to them.


class Child:
    """A child is a process that trains, whose steps are followed as it goes."""

    def __init__(self, folder: Path, run: Path, *flags: str, env: dict[str, str] | None = None):
        command = [sys.executable, __file__, "--child", f"--folder={folder}", f"--run={run}", *flags]
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        settings = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | settings | (env or {})
        )
        self.step, self.errors = 0, ""
        self.said: list[str] = []
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._follow, self._gather)]
        for thread in self._threads:
            thread.start()

    def at(self, step: int) -> None:
        """Waits until the child has come to `step`, or has ended."""
        self.until(lambda: self.step >= step)

    def until(self, come: Callable[[], bool]) -> None:
        """Waits until a condition holds, or until the child has ended."""
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and not come():
            assert time.monotonic() < deadline, "the child does not move"
            time.sleep(0.002)

    def end(self, number: int = 0) -> int:
        """Sends signal `number`, if it is not 0, waits until the child has ended, and returns its exit status."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(START_SECONDS)
        for thread in self._threads:
            thread.join()
        return status

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, _, rest = line.partition(" ")
            if kind == "step":
                self.step = int(rest)
            else:
                self.said.append(rest.strip())

    def _gather(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()


@dataclasses.dataclass
class Check:
    """A check is one line of the table."""

    drill: str
    what: str
    passed: bool


def parameters(run: Path) -> str:
    """The SHA-256 of a finished run's parameters; "" before the run is finished."""
    done = run / "done.json"
    return json.loads(done.read_text())["parameters"] if done.exists() else ""


def reference(folder: Path, name: str, *flags: str) -> str:
    """The digest of the parameters of a run to which nothing happens; it is trained once."""
    run = folder / name
    if not parameters(run):
        status = Child(folder, run, *flags).end()
        assert status == 0, f"the undisturbed run ended with status {status}"
    return parameters(run)


def drill_kill(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Kills runs with kill -9, each of them five times."""
    wanted, dice, done = reference(folder, "whole"), random.Random(given.seed), 0
    while done < given.kills:
        run = folder / f"killed-{done}"
        places, during_saves, hits = [], 0, min(5, given.kills - done)
        for hit in range(hits):
            victim = Child(folder, run, "--pause=0.03")
            step = dice.randrange(max(victim.step, hit * STEPS // (hits + 1)), STEPS - 2)
            delay = dice.random() * 0.03
            if (done + hit) % 2:
                victim.at(max(step, 1))
                saving = lambda: any((run / "checkpoints").glob("*orbax-checkpoint-tmp*"))  # noqa: E731, B023
                victim.until(saving)
                time.sleep(delay / 3)
                during_saves += saving()
            else:
                victim.at(step)
                time.sleep(delay)
            status = victim.end(signal.SIGKILL)
            places.append(f"{victim.step}" + ("" if status == KILLED else f" (ended {status})"))
        done += hits
        status = Child(folder, run).end()
        what = f"kill -9 at steps {', '.join(places)} ({during_saves} during a save), then to the end"
        yield Check("kill", what, status == 0 and parameters(run) == wanted)


def drill_sigterm(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Stops a run with SIGTERM, at which it saves; the same command goes on."""
    run = folder / "sigterm"
    victim = Child(folder, run, "--pause=0.03")
    victim.at(10)
    status = victim.end(signal.SIGTERM)
    again = Child(folder, run)
    passed = status == INTERRUPTED and again.end() == 0 and parameters(run) == reference(folder, "whole")
    yield Check("sigterm", f"SIGTERM at step {victim.step}: status {status}, then to the end", passed)


def drill_nan(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Makes losses NaN: one is skipped, two in a row are rolled back. Does it again and kills the run on the way."""
    bad = "--bad=6,17,18"
    wanted = reference(folder, "nan", bad)
    skipped = json.loads((folder / "nan" / "done.json").read_text())["skipped"]
    is_right = skipped == [[6, 6, "bad"], [17, 18, "rollback"]]
    yield Check("nan", f"NaN at steps 6, 17, 18: skipped {skipped}", is_right)
    run = folder / "nan-killed"
    for step in (7, 18, 19):
        victim = Child(folder, run, bad, "--pause=0.03")
        victim.at(step)
        victim.end(signal.SIGKILL)
    status = Child(folder, run, bad).end()
    yield Check("nan", "the same, killed at 7, 18 and 19", status == 0 and parameters(run) == wanted)


def _damage(folder: Path, name: str, change: Callable[[Path], None]) -> Check:
    run = folder / name
    victim = Child(folder, run, "--pause=0.03")
    victim.at(3 * SAVE_EVERY + 2)
    victim.end(signal.SIGTERM)
    newest = max((path for path in (run / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    files = [path for path in (newest / "params").rglob("*") if path.is_file()]
    change(max(files, key=lambda path: path.stat().st_size))
    again = Child(folder, run)
    status = again.end()
    is_loud = any("is damaged" in line for line in again.said)
    passed = status == 0 and is_loud and parameters(run) == reference(folder, "whole")
    return Check(name, f"the checkpoint of step {newest.name} {name}: set aside, then to the end", passed)


def drill_truncated(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Cuts the largest file of the newest checkpoint."""
    yield _damage(folder, "truncated", lambda file: os.truncate(file, file.stat().st_size // 2))


def drill_flipped(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Flips one bit in the largest file of the newest checkpoint."""

    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    yield _damage(folder, "flipped", flip)


def drill_full_disk(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Lets the disk fill up while checkpoints are written, and then makes it larger."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        print("full_disk: left out, mounting a tmpfs takes root")
        return
    try:
        victim = Child(folder, disk / "run")
        status = victim.end()
        is_clear = "no space left on the device" in victim.errors
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        passed = status == 2 and is_clear and Child(folder, disk / "run").end() == 0
        passed = passed and parameters(disk / "run") == reference(folder, "whole")
        yield Check("full_disk", f"disk full after step {victim.step}: status {status}, then to the end", passed)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def drill_host(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Trains with two processes and kills one of them."""
    wanted = _two(folder, folder / "pair", None)[1]
    run = folder / "pair-killed"
    (first, other), _ = _two(folder, run, 2 * SAVE_EVERY + 1)  # while a checkpoint is being written
    yield Check("host", f"one of two killed: the other ends with status {first}", first == HOST_LOST)
    (first, other), found = _two(folder, run, None)
    yield Check("host", "both again, to the end", (first, other) == (0, 0) and found == wanted)


def _two(folder: Path, run: Path, kill_at: int | None) -> tuple[tuple[int, int], str]:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {"ALIGNPRE_COORDINATOR": f"localhost:{port}", "ALIGNPRE_PROCESSES": "2"}
    pause = "--pause=0.03" if kill_at else "--pause=0"
    pair = [Child(folder, run, pause, env=env | {"ALIGNPRE_PROCESS": str(n)}) for n in range(2)]
    if kill_at:
        pair[0].at(kill_at)
        pair[1].end(signal.SIGKILL)
    statuses = (pair[0].end(), pair[1].end())
    for number, process in enumerate(pair):
        (run / f"stderr-{number}.txt").write_text(process.errors)  # in which both say why they ended
    return statuses, parameters(run)


def drill_stall(folder: Path, given: argparse.Namespace) -> Iterator[Check]:
    """Lets a step never end, upon which the watchdog ends the run."""
    run = folder / "stall"
    victim = Child(folder, run, "--stall=9", "--step_seconds=3")
    status = victim.end()
    passed = status == STALLED and (run / "stacks-0.txt").exists()
    passed = passed and Child(folder, run).end() == 0 and parameters(run) == reference(folder, "whole")
    yield Check("stall", f"a step that hangs: status {status} and all stacks, then to the end", passed)


DRILLS = {
    name.removeprefix("drill_"): function for name, function in sorted(globals().items()) if name.startswith("drill_")
}


def main() -> int:
    """Runs the drills and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often kill -9 strikes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help=f"some of {','.join(DRILLS)}")
    parser.add_argument("--json", default="", help="write the figures here")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs go; default: a temporary folder")
    for flag, kind, default in (
        ("--run", str, ""), ("--bad", str, ""), ("--pause", float, 0.0), ("--stall", int, 0),
        ("--steps", int, STEPS), ("--step_seconds", float, 0.0),
    ):  # fmt: skip
        parser.add_argument(flag, type=kind, default=default, help=argparse.SUPPRESS)
    for flag in ("--child", "--lora"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(given)

    names = given.only.split(",") if given.only else list(DRILLS)
    rows: list[dict[str, Any]] = []
    is_all_well = True
    with tempfile.TemporaryDirectory() if given.folder is None else contextlib.nullcontext(given.folder) as place:
        folder = Path(place).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "rows").exists():
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
            make_rows(folder)
        for name in names:
            start, checks = time.monotonic(), []
            for check in DRILLS[name](folder, given):
                checks.append(check)
                print(f"{check.drill:<10} {'identical' if check.passed else 'FAILED':<10} {check.what}", flush=True)
            passed = sum(check.passed for check in checks)
            is_all_well &= passed == len(checks)
            seconds = round(time.monotonic() - start, 1)
            row = {"metric": f"drill_{name}", "value": passed, "unit": f"of {len(checks)} checks", "seconds": seconds}
            rows.append(row | {"peer": "", "peer_value": None, "ratio": None})
    print(f"{sum(row['value'] for row in rows)} checks passed in {sum(row['seconds'] for row in rows):.0f} s")
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if is_all_well else 1


if __name__ == "__main__":
    sys.exit(main())
