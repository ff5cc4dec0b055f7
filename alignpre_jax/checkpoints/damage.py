"""This module tells whether a checkpoint is damaged, or merely could not be read just now.

The question matters because the answers differ: a damaged checkpoint is set aside and the one before it is taken, but
a disk or bucket that is away for a minute makes every checkpoint unreadable at once, and setting all of them aside
would start a finished month at step 0. So a failure counts as damage only if the bytes arrived and are wrong: a digest
differs, something does not parse, or a file is missing in a folder that is there. Everything else is raised.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from alignpre_jax.foundation import PathLike, UserError

T = TypeVar("T")

WAITS = (1.0, 4.0, 15.0)  # seconds before the second and each later attempt to read
# What the libraries that read for us, TensorStore and gRPC, call an error of the connection rather than of the bytes.
_CODES = "UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED|ABORTED|CANCELLED"
_PASSING = re.compile(rf"^(?:{_CODES}|UNKNOWN|INTERNAL): |Gloo")
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
_LONG = 300  # characters of a cause that are shown
_OF_THE_FOLDER = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)  # a file is missing, or is something else


class DamagedError(ValueError):
    """A `DamagedError` says that what was read is not what was saved."""


def may_pass(error: BaseException) -> bool:
    """Returns whether reading again later may succeed: the error does not prove that the bytes on disk are wrong."""
    return any(_is_of_the_way(each) for each in _chain(error))


def read(what: str, place: PathLike, reader: Callable[[], T]) -> T:
    """Returns what `reader` returns, and calls it a few more times after an error that may pass.

    On several hosts it does not try again, because each host would do so at another time; such an error is then raised
    as it is, and so is an error of JAX or a lack of memory.

    Args:
      what: names what is read, for messages.
      place: where it lies.
      reader: reads it.

    Raises:
      DamagedError: what was read is wrong.
      UserError: it could not be read.
    """
    for wait in (*WAITS, None):
        try:
            return reader()
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:  # damaged bytes may make the libraries below raise any error
            cause = _first_line(error)
            if not may_pass(error):
                raise DamagedError(cause) from error
            if isinstance(error, (jax.errors.JaxRuntimeError, MemoryError)) or jax.process_count() > 1:
                raise
            if wait is None:
                raise UserError(
                    f"{what} could not be read: {cause}",
                    where=os.fspath(place),
                    fix="see that the disk or bucket can be reached, then start the same command again; nothing was "
                    "moved or deleted",
                ) from error
            time.sleep(wait)
    raise AssertionError


def _is_of_the_way(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return not isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError))
    if isinstance(error, (jax.errors.JaxRuntimeError, MemoryError)):
        return True
    text = str(error)
    codes = [int(code) for code in _OS_ERROR.findall(text)]
    return any(code not in _OF_THE_FOLDER for code in codes) or bool(_PASSING.search(text))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error, and then the errors that it was raised from."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _first_line(error: BaseException) -> str:
    """Returns the first line of the first cause, because what the libraries raise in between says little."""
    *_, first = _chain(error)
    line = (str(first).strip().splitlines() or [""])[0].partition(" [tensorstore_spec")[0]
    line = line if len(line) <= _LONG else f"{line[: _LONG // 2]} ... {line[-_LONG // 2 :]}"  # the end says why
    return f"{type(first).__name__}: {line}"
