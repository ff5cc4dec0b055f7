"""A checkpoint becomes a Hugging Face folder, for programs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from alignpre_jax.checkpoints.folder import COMPANY, DONE
from alignpre_jax.checkpoints.loading import load
from alignpre_jax.foundation import PathLike, Report, UserError, read_json, silent
from alignpre_jax.model.hf import COMPANIONS, export_model
from alignpre_jax.model.hf.config import DTYPES
from alignpre_jax.rows.pieces import PieceTokenizer


def export(
    run_dir: PathLike,
    folder: PathLike,
    *,
    step: int | None = None,
    dtype: str = "",
    card: str = "",
    company: PathLike = "",
    report: Report = silent,
) -> None:
    """Writes a checkpoint as a Hugging Face model folder.

    Args:
      run_dir: the run's folder.
      folder: made if missing; must not hold a model already.
      step: which checkpoint; the newest when None.
      dtype: of the tensors; by default that of the model it was imported from, else float32.
      card: the README.md, Markdown.
      company: the folder of the import that the run goes back to; its tokenizer's settings and chat template are
        given back.
      report: told the number of tensors.

    Raises:
      UserError: there is no such checkpoint, no Hugging Face family computes it, or `folder` holds a model.
    """
    model = load(run_dir, step)
    codec = model.tokenizer
    origin = epath.Path(company or run_dir)
    there = [name for name in COMPANIONS if (origin / COMPANY / name).exists()]
    files = {name: (origin / COMPANY / name).read_bytes() for name in there}
    files["tokenizer.model" if isinstance(codec, PieceTokenizer) else "tokenizer.json"] = codec.data
    if card:
        files["README.md"] = card.encode()
    done: Mapping[str, Any] = read_json(origin / DONE) if (origin / DONE).exists() else {}
    chosen: Any = dtype or done.get("imported", {}).get("dtype", "float32")
    if chosen not in DTYPES:
        raise UserError(f"{chosen!r} is no dtype of tensors", where="--dtype", fix=f"one of {', '.join(DTYPES)}")
    export_model(
        folder, model.params, model.config, files, eot=codec.eot, eot_id=codec.eot_id, dtype=chosen, report=report
    )
