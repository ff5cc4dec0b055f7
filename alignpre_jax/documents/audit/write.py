"""This module writes an audit as files."""

from __future__ import annotations

from etils import epath

from alignpre_jax.documents.audit.records import Audit
from alignpre_jax.foundation import PathLike, write_bytes, write_json


def write_audit(audit: Audit, root: PathLike) -> epath.Path:
    """Writes audit.json (schema: `alignpre_jax.documents.audit.records`) and audit.html into a folder.

    Returns:
      The path of the page.
    """
    from alignpre_jax.documents.audit.page import render_page  # matplotlib is slow to import

    folder = epath.Path(root)
    write_json(folder / "audit.json", audit.to_json())
    write_bytes(folder / "audit.html", render_page(audit).encode())
    return folder / "audit.html"
