"""Models for the engine: from a run's folder, a Hugging Face folder, or a GGUF file."""

from __future__ import annotations

import dataclasses

import jax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from alignpre_jax.foundation import PathLike, UserError
from alignpre_jax.model import DecoderConfig, make_mesh
from alignpre_jax.model.hf import import_model, is_model
from alignpre_jax.rows import Tokenizer, load_tokenizer
from alignpre_jax.rows.template import Template, read_template
from alignpre_jax.training.checkpoints import load_params
from alignpre_jax.training.imported import COMPANY, pick_tokenizer

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What an engine is made of; see `Engine`."""

    params: nnx.State
    config: DecoderConfig
    tokenizer: Tokenizer
    template: Template


def load(path: PathLike, step: int | None, mesh: Mesh | None, dtype: str) -> Loaded:
    """Parameters over `mesh` (the first device alone when None), and what belongs to them.

    Raises:
      UserError: see `Engine.from_checkpoint`.
    """
    if dtype and dtype not in DTYPES:
        raise UserError(f"{dtype!r} is no dtype to compute in", where="dtype", fix=f"one of {', '.join(DTYPES)}")
    if is_model(path):
        if step is not None:
            raise UserError("a model from elsewhere has no steps", where="step", fix="leave it out")
        chosen = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        found = import_model(path, mesh or make_mesh({"fsdp": 1}, jax.devices()[:1]), dtype=chosen)
        return Loaded(found.params, found.config, pick_tokenizer(found.files, str(path)), read_template(found.files))
    params, config, tokenizer = load_params(path, step, mesh=mesh)
    config = dataclasses.replace(config, dtype=dtype) if dtype else config  # type: ignore[arg-type]
    company = epath.Path(path) / COMPANY
    files = {p.name: p.read_bytes() for p in company.iterdir()} if company.exists() else {}
    return Loaded(params, config, load_tokenizer(tokenizer), read_template(files))
