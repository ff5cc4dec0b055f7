"""The one way to read a model: from a run's folder, a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from alignpre_jax.checkpoints.folder import CHECKPOINTS, TOKENIZER, template_of
from alignpre_jax.checkpoints.steps import TURN, verify
from alignpre_jax.foundation import PathLike, UserError, build
from alignpre_jax.model import DecoderConfig, init_params, make_mesh, param_shardings
from alignpre_jax.model.hf import Imported, import_model, is_model
from alignpre_jax.rows import Tokenizer, load_tokenizer, parse_tokenizer
from alignpre_jax.rows.template import Template, read_template

DTYPES = ("float32", "bfloat16")
Weights = Literal["params", "ema"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that was read from disk: all that asking it, or training it further, needs to know.

    Attributes:
      params: float32, laid out over the mesh as in training.
      config: the decoder's shape, and how it is computed.
      tokenizer: the one that it was trained with.
      template: its own chat template; the plain one if it has none.
      facts: JSON-able; of a run, what was saved with the checkpoint (its `step`, its `digests`, the run's labels).
    """

    params: nnx.State
    config: DecoderConfig
    tokenizer: Tokenizer
    template: Template
    facts: Mapping[str, Any]


def load(
    place: PathLike,
    step: int | None = None,
    *,
    mesh: Mesh | None = None,
    weights: Weights = "params",
    dtype: str = "",
) -> Model:
    """Reads a model, its parameters spread over `mesh`.

    Args:
      place: a run's folder, a Hugging Face folder, or a .gguf file.
      step: of a run: which checkpoint; the newest when None.
      mesh: the devices that the parameters are spread over; this process's first device alone when None.
      weights: "params", or "ema" for their moving average (`optimizer.ema_decay`); a run's.
      dtype: "float32" or "bfloat16" to compute in; by default as trained, and for models from elsewhere float32 on a
        CPU, else bfloat16.

    Raises:
      UserError: there is no such model, it is not one that is supported, it is damaged, or there is no such dtype.
    """
    if dtype and dtype not in DTYPES:
        raise UserError(f"{dtype!r} is no dtype to compute in", where="dtype", fix=f"one of {', '.join(DTYPES)}")
    mesh = mesh or make_mesh({"fsdp": 1}, jax.local_devices()[:1])
    if is_model(place):
        if step is not None:
            raise UserError("a model from elsewhere has no steps", where="step", fix="leave it out")
        if weights != "params":
            raise UserError(f"a model from elsewhere has no {weights}", where="weights", fix="leave it out")
        chosen = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        return _of_elsewhere(import_model(place, mesh, dtype=chosen), str(place))
    params, config, facts = _read(place, step, mesh, weights)
    config = dataclasses.replace(config, dtype=dtype) if dtype else config  # type: ignore[arg-type]
    return Model(params, config, load_tokenizer(epath.Path(place) / TOKENIZER), template_of(place), facts)


def pick_tokenizer(files: Mapping[str, bytes], where: str) -> Tokenizer:
    """The tokenizer among a model's files."""
    for name in ("tokenizer.json", "tokenizer.model"):
        if name in files:
            return parse_tokenizer(files[name], where=f"{where}/{name}")
    raise UserError("the model comes without a tokenizer", where=where, fix="give one: --tokenizer=FILE")


def _of_elsewhere(found: Imported, place: str) -> Model:
    facts = {"source": place, "family": found.architecture.family, "dtype": found.architecture.dtype}
    return Model(found.params, found.config, pick_tokenizer(found.files, place), read_template(found.files), facts)


def _read(
    place: PathLike, step: int | None, mesh: Mesh, weights: Weights
) -> tuple[nnx.State, DecoderConfig, Mapping[str, Any]]:
    """(parameters, config, facts) of a checkpoint."""
    root = epath.Path(place).resolve() / CHECKPOINTS
    steps = sorted(int(p.name) for p in root.iterdir() if p.name.isdigit()) if root.exists() else []
    if not steps:
        raise UserError(
            f"no checkpoint in {place}", where="--checkpoint", fix="give a run's folder, WORKDIR/train/SEED/STAGE"
        )
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {place}", where="--step", fix=f"there are: {steps}")
    folder = root / str(steps[-1] if step is None else step)
    if not (folder / weights).exists():
        raise UserError(
            f"the checkpoint {folder} has no {weights}", where="--checkpoint", fix="train with optimizer.ema_decay set"
        )
    with TURN, ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(folder / "meta")
    config = build(DecoderConfig, meta["model"], where=f"{folder}/meta: model")
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(functools.partial(init_params, config), 0),
        param_shardings(config, mesh),
    )
    try:
        with TURN, ocp.StandardCheckpointer() as reader:
            params = reader.restore(folder / weights, abstract)
        verify({weights: params}, meta["digests"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint cannot be read: {str(error).splitlines()[0][:300]}",
            where=f"{folder}",
            fix="train the run again, or give the --step of an older checkpoint",
        ) from error
    return params, config, meta
