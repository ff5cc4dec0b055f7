"""Row stores where every host of a pod can read them without a mounted disk: in a bucket."""

from __future__ import annotations

from alignpre_jax.foundation import Event, PathLike, Report, UserError, silent
from alignpre_jax.rows import gcs
from alignpre_jax.rows.store import HEADER, RowStore, open_rows


def publish_rows(store: RowStore, url: PathLike, report: Report = silent) -> RowStore:
    """Copies a store to a gs:// folder and opens it there; what is there already is kept.

    The header is written last: a copy that was broken off is no store, and the next one makes it whole.

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
    """Asks the bucket for something, so that one that does not answer is known before hours of work on the rows."""
    gcs.read_object(f"{url}/{HEADER}")
