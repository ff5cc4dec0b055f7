"""This module reads and writes objects of Google Cloud Storage through TensorStore.

The objects are a row store's header, and the store's files when it is copied to a bucket. The records themselves are
read by the ArrayRecord library, which takes gs:// paths. Both libraries find the machine's own account, or the one of
`gcloud auth application-default login`.
"""

from __future__ import annotations

import os
from typing import Any

from alignpre_jax.foundation import PathLike, UserError

PATIENCE = 60.0  # seconds for a small object; TensorStore tries again by itself until then
BYTES_PER_SECOND = 1e6  # the slowest connection on which a large object is still waited for


def is_gcs(path: PathLike) -> bool:
    """Returns whether `path` is a gs:// URL."""
    return os.fspath(path).startswith("gs://")


def read_object(url: PathLike) -> bytes | None:
    """Returns the content of an object, or None if there is no such object.

    Raises:
      UserError: the bucket does not answer, or does not answer to this account.
    """
    found = _ask(url, lambda store: store.read(""), PATIENCE)
    return None if found.state == "missing" else bytes(found.value)


def write_object(url: PathLike, data: bytes) -> None:
    """Writes an object, whole or not at all; raises as `read_object` does."""
    _ask(url, lambda store: store.write("", data), PATIENCE + len(data) / BYTES_PER_SECOND)


def _ask(url: PathLike, what: Any, seconds: float) -> Any:
    try:
        return what(_open(url)).result(timeout=seconds)
    except (TimeoutError, ValueError, OSError, RuntimeError) as error:
        silent = isinstance(error, TimeoutError)
        cause = f"no answer within {seconds:.0f} s" if silent else (str(error).splitlines() or [""])[0][:300]
        fix = "`alignpre doctor --bucket=gs://BUCKET` tries the account's rights; gcp/README.md says which it needs"
        raise UserError(f"the bucket cannot be reached: {cause}", where=os.fspath(url), fix=fix) from None


def _open(url: PathLike) -> Any:
    import tensorstore

    return tensorstore.KvStore.open(os.fspath(url)).result(timeout=PATIENCE)
