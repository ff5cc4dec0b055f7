"""Compiles programs once for each shape, ahead of their use where that is wanted, and counts them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from alignpre_jax.foundation import PathLike
from alignpre_jax.model import DecoderConfig, InferenceWeights

Key = tuple[Any, ...]
_COMPILED: dict[Key, Any] = {}  # shared by all engines of the process, since weights are arguments
_LOCK = threading.Lock()


class Programs:
    """The programs of one engine.

    Args:
      config: the decoder's config.
      weights: the decoder's weights, the first argument of every program.
      mesh: the devices that the weights are spread over, if more than one.

    Attributes:
      used: (function, *sizes) of the programs that this engine has called or compiled.
      compiled: how many of them were compiled for this engine; an earlier engine had the others compiled.
    """

    def __init__(self, config: DecoderConfig, weights: InferenceWeights, mesh: Mesh | None):
        self.used: set[Key] = set()
        self.compiled = 0
        self._config, self._weights, self._mesh = config, weights, mesh
        leaves, tree = jax.tree.flatten(weights)
        places = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
        self._common = (config, tree, places)

    def call(self, function: Callable, sizes: Key, *args: Any) -> Any:
        """Returns `function(config, sizes, weights, *args)`, computed by a compiled program.

        Args:
          function: a jitted function, in which `config` and `sizes` are static.
          sizes: whatever the shapes of `args` depend on, and what else is static; each value has its own program.
          args: arrays, or abstract arrays in `compile`.
        """
        program = self.compile(function, sizes, *args)
        if self._mesh:  # one program's results may be split otherwise than the next program wants
            args = jax.device_put(args, program.input_shardings[0][1:])
        return program(self._weights, *args)

    def compile(self, function: Callable, sizes: Key, *args: Any) -> Any:
        """Returns the program for `sizes`, compiled if this is the first time."""
        key = (function, *sizes)  # the function and not its name: two modules may each have a `begin`
        with _LOCK, self.devices():
            self.used.add(key)
            found = _COMPILED.get((self._common, key))
            if found is None:
                found = function.lower(self._config, sizes, self._weights, *args).compile()  # type: ignore[attr-defined]
                _COMPILED[self._common, key] = found
                self.compiled += 1
        return found

    def outputs(self, function: Callable, sizes: Key, *args: Any) -> Any:
        """Returns what a program gives, as abstract arrays with which other programs can be compiled."""
        program = self.compile(function, sizes, *args)
        with self.devices():
            shapes = jax.eval_shape(
                lambda weights, *args: function(self._config, sizes, weights, *args), self._weights, *args
            )
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, program.output_shardings
        )

    def devices(self) -> contextlib.AbstractContextManager:
        """Returns a context in which the engine's mesh is in force."""
        return jax.set_mesh(self._mesh) if self._mesh else contextlib.nullcontext()


def keep_programs(folder: PathLike) -> None:
    """Keeps compiled programs in `folder` from now on, from which the next process reads them."""
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
