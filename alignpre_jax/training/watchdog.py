"""The watchdog gives every phase of a run a deadline, so that nothing hangs unnoticed."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

from etils import epath

from alignpre_jax.foundation import PathLike
from alignpre_jax.training.faults import STALLED

_GRACE = 60.0  # seconds after which, if Python itself is stuck, a thread outside of it ends the process with status 1


class Watchdog:
    """A `Watchdog` ends the process with status 76 when a phase takes longer than it may.

    The stacks of all threads are written to stderr and to `RUN_DIR/stacks-PROCESS.txt` first. It is used as
    `with Watchdog(...) as watchdog: watchdog.allow("step", 600)`; each call begins a phase and ends the one before.
    """

    def __init__(self, run_dir: PathLike, process: int = 0):
        self._file = epath.Path(run_dir) / f"stacks-{process}.txt"
        self._changed = threading.Condition()
        self._phase, self._deadline, self._seconds = "", float("inf"), 0.0
        self._over = False

    def allow(self, phase: str, seconds: float) -> None:
        """Begins `phase`, which may take this many seconds; 0 lets it take as long as it wants."""
        with self._changed:
            is_earlier = time.monotonic() + (seconds or float("inf")) < self._deadline
            self._phase, self._seconds = phase, seconds
            self._deadline = time.monotonic() + (seconds or float("inf"))
            if is_earlier:
                self._changed.notify()

    def __enter__(self) -> Watchdog:
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._over:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            else:
                return
            faulthandler.dump_traceback_later(_GRACE, exit=True)
            self._end()

    def _end(self) -> None:
        minutes = self._seconds / 60
        message = f"watchdog: the phase '{self._phase}' took longer than its {minutes:.3g} minutes; all stacks follow"
        print(f"{message}, and are in {self._file}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        if "://" not in os.fspath(self._file):
            with open(self._file, "w") as file:
                print(message, file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        os._exit(STALLED)
