"""This is the worker process of `launch.workers`: tasks come in and events go out, as one JSON object a line.

When its input ends, because the parent is done or was killed, the worker saves and leaves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

from alignpre_jax.foundation import Event, Interrupted, UserError
from alignpre_jax.launch.together import run_together
from alignpre_jax.study import enable_compilation_cache, job_graph, reopen_workspace
from alignpre_jax.training import initialize

GRACE_SECONDS = 45  # from being asked to stop until it stops without having saved


def main() -> int:
    """Takes tasks and does them until the input ends."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints goes to the log
    tasks: queue.Queue[dict[str, str] | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(tasks, busy), daemon=True).start()

    enable_compilation_cache(sys.argv[1])
    initialize()
    while (task := tasks.get()) is not None:
        busy.set()
        try:
            space = reopen_workspace(task["root"])
            run_together(
                space, job_graph(space.tree)[task["job"]], lambda event: _send(channel, {"event": _plain(event)})
            )
        except Interrupted:
            return 0
        except UserError as error:
            _send(channel, {"user_error": {"what": error.what, "where": error.where, "fix": error.fix}})
        else:
            _send(channel, {"done": task["task"]})
        busy.clear()
    return 0


def _listen(tasks: queue.Queue[dict[str, str] | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    tasks.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)  # training saves a checkpoint first; nothing else has anything to save
        time.sleep(GRACE_SECONDS)
        os._exit(1)


def _send(channel: IO[str], message: dict[str, Any]) -> None:
    try:
        channel.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        os._exit(1)  # the parent is gone, and everything finished is on disk


def _plain(event: Event) -> dict[str, Any]:
    return dataclasses.asdict(event)


if __name__ == "__main__":
    sys.exit(main())
