"""This module has the one error that a user's mistake raises, and the one that a request to stop raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend: what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2. Our own
    broken invariants are `assert`s, never this.

    Args:
      what: one sentence, naming the offending value.
      where: the config key, flag or `file:line` it came from.
      fix: what to do next.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  to do: {fix}")
        super().__init__("\n".join(lines))


class Interrupted(Exception):
    """The work was asked to stop (SIGTERM) and has saved itself; the same command goes on from there."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns 'did you mean ...?' for a misspelt name, or the list of known names when none is close."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "none is defined"
