"""This program is one process of a `Crew`: `python -m alignpre_jax.rows.worker` reads tasks from stdin to its end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback

from alignpre_jax.foundation import UserError
from alignpre_jax.rows.blocks import Recipe
from alignpre_jax.rows.shards import perform
from alignpre_jax.rows.template import Template
from alignpre_jax.rows.tokenizer import parse_tokenizer


def main() -> None:
    """Answers each task with a line of JSON, and leaves when the parent has gone, whatever the task."""
    parent = os.getppid()
    tasks = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    hello = json.loads(tasks.readline() or "null")
    if hello is None:
        return
    tokenizer = parse_tokenizer(tasks.read(hello["bytes"]), hello["eot"])
    facts = hello["recipe"]
    recipe = Recipe(**facts | {"template": Template(**facts["template"])})
    while line := tasks.readline():
        task = json.loads(line)
        payload = tasks.read(task["bytes"])
        if len(payload) < task["bytes"] or os.getppid() != parent:
            return
        try:
            answer = perform(task, payload, recipe, tokenizer)
        except UserError as error:
            answer = {"mistake": [error.what, error.where, error.fix]}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    main()
