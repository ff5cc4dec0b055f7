"""This module calls the clouds' command-line tools, or prints the calls (--dry_run), and sorts errors by what helps."""

from __future__ import annotations

import dataclasses
import random
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Literal

from alignpre_jax.foundation import UserError

Kind = Literal["auth", "quota", "missing", "exists", "invalid", "transient"]
# What the tools print when something is wrong; the first pattern that fits counts. All else is worth another try.
_KINDS: tuple[tuple[Kind, str], ...] = (
    ("auth", r"reauthenticat|refreshing your current auth|not currently have an active account|invalid_grant"
     r"|UNAUTHENTICATED|PERMISSION_DENIED|does not have permission|gcloud auth login|\b40[13]\b"),
    ("quota", r"quota|RESOURCE_EXHAUSTED|exceeded the limit|\b429\b"),
    ("exists", r"ALREADY_EXISTS|already exists"),
    ("missing", r"NOT_FOUND|not found|matched no objects|no URLs matched|does not exist"),
    ("invalid", r"INVALID_ARGUMENT|unrecognized arguments|Invalid value|is not a valid|must be specified"),
)  # fmt: skip


class CloudError(Exception):
    """A call of a tool has failed; the error has its kind and the last words that the tool printed."""

    def __init__(self, kind: Kind, text: str):
        self.kind, self.text = kind, text
        super().__init__(f"{kind}: {text}")


@dataclasses.dataclass(frozen=True)
class Tool:
    """A command-line tool.

    Attributes:
      name: the name of the command on the PATH.
      dry_run: whether commands are printed and not run.
      timeout: the seconds that one call may take.
    """

    name: str
    dry_run: bool = False
    timeout: float = 600.0

    def __call__(self, *arguments: str) -> str:
        """Runs the tool and returns what it prints; with `dry_run` prints the command and returns "".

        Raises:
          CloudError: the call failed.
          UserError: there is no such tool.
        """
        command = [self.name, *arguments]
        if self.dry_run:
            print(shlex.join(command))
            return ""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise UserError(
                f"there is no command {self.name!r}",
                where="PATH",
                fix=f"install it, see gcp/README.md; then `{self.name} --help`",
            ) from None
        except subprocess.TimeoutExpired:
            raise CloudError("transient", f"{self.name} {arguments[0]}: no answer in {self.timeout:.0f} s") from None
        if done.returncode:
            text = (done.stderr or done.stdout).strip()[-2000:]
            raise CloudError(classify(text), text or f"{self.name} ended with status {done.returncode}")
        return done.stdout


def classify(text: str) -> Kind:
    """The kind of error that a tool's message is about."""
    for kind, pattern in _KINDS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind
    return "transient"


@dataclasses.dataclass
class Backoff:
    """Waits that double from `first` to `most` seconds, each shortened at random so that callers spread out."""

    first: float = 10.0
    most: float = 900.0
    sleep: Callable[[float], None] = time.sleep
    tries: int = 0

    def wait(self) -> None:
        """Waits, longer each time until `reset`."""
        seconds = min(self.first * 2**self.tries, self.most)
        self.tries += 1
        self.sleep(seconds * random.uniform(0.75, 1.0))

    def reset(self) -> None:
        """Makes the next wait short again, because a call has worked."""
        self.tries = 0


def read_object(gcloud: Tool, url: str) -> str | None:
    """The text of an object in a bucket; None where there is no such object."""
    try:
        return gcloud("storage", "cat", url)
    except CloudError as error:
        if error.kind == "missing":
            return None
        raise
