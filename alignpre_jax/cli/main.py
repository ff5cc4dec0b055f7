"""This module finds the verb of `alignpre VERB`, runs it, and turns what happens into an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from alignpre_jax.cli import data, doctor, documents, evals, models, shell, study, tpu, tree
from alignpre_jax.cli.verb import Verb, help_text, parse
from alignpre_jax.foundation import Interrupted, UserError, accelerator_present, suggest

MISTAKE = 2
INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h
STATUSES = {
    0: "done",
    2: "a mistake in what was asked: the message says where, and what to do",
    75: "stopped by Ctrl-C or SIGTERM; everything is saved, and the same command goes on",
    76: "training stalled: no step ended in the time that loop.step_minutes allows; the same command goes on",
    77: "another host of the run has vanished; start all of them again",
    1: "a bug, with a traceback",
}
VERBS: dict[str, Verb] = (
    study.VERBS | tree.VERBS | evals.VERBS | documents.VERBS | data.VERBS | models.VERBS | tpu.VERBS | doctor.VERBS
)
VERBS["completion"] = shell.completion(VERBS)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if not accelerator_present():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # else an installed libtpu looks for a TPU for a long time
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: workers save, nothing is lost
    try:
        name, *rest = argv
        if name not in VERBS:
            raise UserError(f"no verb {name!r}", where="alignpre VERB", fix=suggest(name, VERBS))
        if {"-h", "--help"} & set(rest):
            print(help_text(name, VERBS[name]))
            return 0
        given, arguments = parse(name, VERBS[name], rest)
        VERBS[name].run(given, *arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except (KeyboardInterrupt, Interrupted):
        print("stopped; what was finished is kept, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.does}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "alignpre VERB [--config=FILE] [--config.key=value ...] [--flag=value ...]",
            "",
            *lines,
            "",
            "alignpre VERB --help shows the flags of a verb and examples. `alignpre doctor` looks at this machine;",
            "`source <(alignpre completion bash)` completes verbs and flags.",
            "",
            "Exit status:",
            *(f"  {status:>2}  {meaning}" for status, meaning in STATUSES.items()),
        ]
    )
