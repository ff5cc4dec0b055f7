"""This module copies row stores to a bucket, where every host of a pod can read them without a mounted disk."""

from __future__ import annotations

from alignpre_jax.foundation import Event, PathLike, Report, UserError, silent
from alignpre_jax.rows import gcs
from alignpre_jax.rows.store import HEADER, RowStore, open_rows


def publish_rows(store: RowStore, url: PathLike, report: Report = silent) -> RowStore:
    """Copies a store to a gs:// folder and opens it there; a store that is there already is kept.

    The header is written last, so a copy that was broken off does not pass for a store, and the next call copies again.

    Raises:
      UserError: other rows are there, or the bucket cannot be written to.
    """
    if gcs.read_object(f"{url}/{HEADER}") is None:
        files = sorted(file for file in store.path.iterdir() if file.suffix == ".array_record")
        for number, file in enumerate([*files, store.path / HEADER], 1):
            gcs.write_object(f"{url}/{file.name}", file.read_bytes())
            report(Event("rows to the bucket", number, len(files) + 1))
    there = open_rows(url)
    if there.header != store.header:
        fix = "give another data.rows_url, or delete that folder"
        raise UserError(f"other rows than those of {store.path} are there", where=f"{url}", fix=fix)
    return there


def check_rows_url(url: str) -> None:
    """Asks the bucket for a header, so that a bucket that does not answer is known before hours of work on the rows.

    Raises:
      UserError: the bucket does not answer, or does not answer to this account.
    """
    gcs.read_object(f"{url}/{HEADER}")
