"""Runs that begin with weights from elsewhere, and checkpoints for programs elsewhere."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from alignpre_jax.foundation import (
    PathLike,
    Report,
    UserError,
    difference,
    read_json,
    silent,
    to_mapping,
    write_bytes,
    write_json,
)
from alignpre_jax.model import DecoderConfig, make_mesh
from alignpre_jax.model.hf import COMPANIONS, Imported, export_model, import_model
from alignpre_jax.model.hf.config import DTYPES
from alignpre_jax.rows import Tokenizer, load_tokenizer, parse_tokenizer
from alignpre_jax.training.checkpoints import TOKENIZER, Checkpoints, describe, load_params
from alignpre_jax.training.digests import parameters_digest
from alignpre_jax.training.step import State

DONE = "done.json"
COMPANY = "imported"  # folder beside the checkpoints: what else came with the model
# Fields that change how a model is computed or how large its tables are, and not what its numbers mean.
_FREE = ("max_length", "vocab_multiple", "init", "layout", "remat", "attention", "dtype")


def import_run(
    source: PathLike,
    run_dir: PathLike,
    *,
    model: DecoderConfig | None = None,
    tokenizer: PathLike = "",
    mesh: Mesh | None = None,
    report: Report = silent,
) -> Imported:
    """Makes a run's folder of a model from elsewhere: its checkpoint 0, its tokenizer, done.json.

    Args:
      source: a Hugging Face folder or a .gguf file, "hf:" in front or not.
      run_dir: stages can start from it, and an engine can load it.
      model: what the importing study calls its model: must be of the same shape; says how it is computed.
      tokenizer: a file to use where the model has none that can be read.
      mesh: the devices that the parameters are spread over; the first device alone when None.
      report: told the number of tensors.

    Raises:
      UserError: the model cannot be read, is not the `model` of the study, or its tokenizer does not fit it.
    """
    free = {name: getattr(model, name) for name in _FREE} if model else {}
    place = os.fspath(source).removeprefix("hf:")
    imported = import_model(place, mesh or make_mesh({"fsdp": 1}, jax.devices()[:1]), report, **free)
    if model is not None and imported.config != model:
        changes = "\n    ".join(difference(model, imported.config))
        raise UserError(
            f"{place} is not the model that the config describes:\n    {changes}",
            where="model and init_from",
            fix="set the model's values to those on the right",
        )
    codec = load_tokenizer(tokenizer) if tokenizer else pick_tokenizer(imported.files, place)
    if codec.vocab_size > imported.config.vocab_size:
        raise UserError(
            f"the tokenizer has {codec.vocab_size:,} entries, the model {imported.config.vocab_size:,}",
            where=place,
            fix="give the tokenizer that the model was trained with: --tokenizer=FILE",
        )
    run = epath.Path(run_dir)
    architecture = imported.architecture
    facts = {"source": place, "family": architecture.family, "dtype": architecture.dtype}
    with Checkpoints(run, keep=1, meta=describe(imported.config, run=f"imported {place}", imported=facts)) as saved:
        saved.save(State(imported.params, None, jax.numpy.int32(0)), {})
    for name, data in imported.files.items():
        if name in COMPANIONS:
            write_bytes(run / COMPANY / name, data)
    write_bytes(run / TOKENIZER, codec.data)
    done = {"steps": 0, "tokens": 0, "imported": facts, "parameters": parameters_digest(imported.params)}
    write_json(run / DONE, done | {"model": to_mapping(imported.config)})
    return dataclasses.replace(imported, files=imported.files | {TOKENIZER: codec.data})


def export_run(
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
    from alignpre_jax.rows.pieces import PieceTokenizer

    params, config, tokenizer_file = load_params(run_dir, step)
    codec = load_tokenizer(tokenizer_file)
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
    export_model(folder, params, config, files, eot=codec.eot, eot_id=codec.eot_id, dtype=chosen, report=report)


def pick_tokenizer(files: Mapping[str, bytes], where: str) -> Tokenizer:
    """The tokenizer among a model's files."""
    for name in ("tokenizer.json", "tokenizer.model"):
        if name in files:
            return parse_tokenizer(files[name], where=f"{where}/{name}")
    raise UserError("the model comes without a tokenizer", where=where, fix="give one: --tokenizer=FILE")
