"""Compiles the step that decodes, for devices that are only described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from alignpre_jax.foundation import build, to_mapping
from alignpre_jax.model import DecoderConfig, parse_mesh
from alignpre_jax.model.inference import abstract_weights
from alignpre_jax.planner.cache import Program
from alignpre_jax.planner.compile import Compiled, TooLarge, describe_devices, read_compiled, read_too_large
from alignpre_jax.planner.plan import DecodeWork
from alignpre_jax.planner.topology import Topology
from alignpre_jax.sampling import generation
from alignpre_jax.sampling.batching import IDLE
from alignpre_jax.sampling.buckets import Buckets
from alignpre_jax.sampling.generation import ENDS, Asked
from alignpre_jax.sampling.programs import Programs
from alignpre_jax.sampling.strategies import Settings


def decode_work(model: DecoderConfig, mesh: str, rows: int = 64, slots: int = 2048) -> DecodeWork:
    """Returns the work of decoding with `rows` rows of `slots` places, as many tokens in a call as an `Engine` does."""
    steps = Buckets().steps
    arguments = {"model": to_mapping(model), "mesh": mesh, "rows": rows, "slots": slots, "steps": steps}
    program = Program("alignpre_jax.planner.decode:compile_decode", arguments)
    return DecodeWork("decode", model.forward_flops_per_token(slots), mesh, rows, slots, steps, program)


def compile_decode(arguments: Mapping[str, Any], topology: Topology) -> Compiled | TooLarge:
    """Compiles `generation.decode` with an engine's own shapes and shardings.

    Raises:
      UserError: see `describe_devices`; also a mesh that does not fit the devices or the model.
    """
    config = build(DecoderConfig, arguments["model"], "model")
    rows, slots, steps = (arguments[name] for name in ("rows", "slots", "steps"))
    mesh = parse_mesh(arguments["mesh"], describe_devices(topology))
    weights = abstract_weights(config, mesh)
    programs = Programs(config, weights, mesh)
    asked = Asked(
        Settings.of([IDLE] * rows),
        np.zeros((rows, 2), np.uint32),
        np.zeros((rows, ENDS), np.int32),
        np.zeros((rows, generation.words(config)), np.uint32),
        np.ones(rows, bool),
    )
    try:
        state = programs.outputs(generation.empty, (rows, slots))
        compiled = programs.compile(generation.decode, (rows, slots, steps), state, asked)
    except jax.errors.JaxRuntimeError as error:
        too_large = read_too_large(str(error))
        if too_large is None:
            raise
        return too_large
    return read_compiled(compiled, {"weights": weights, "state": {"cache": state}})
