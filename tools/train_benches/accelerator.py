"""Measures what an accelerator reaches with plain matrix products and with our training step."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignpre_jax.mixture import Batch
from alignpre_jax.model import DecoderConfig, choose_kernel, parse_mesh
from alignpre_jax.objectives import Mle
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step


def matmul_rate(size: int = 8192, repeats: int = 30) -> float:
    """Measures the FLOP/s of bfloat16 products of square matrices on one device, times the number of devices."""
    if jax.default_backend() == "cpu":
        size, repeats = 1024, 3
    a = jnp.ones((size, size), jnp.bfloat16)
    multiply = jax.jit(lambda x: jax.lax.fori_loop(0, repeats, lambda _, y: (y @ a) * (1 / size), x))
    jax.block_until_ready(multiply(a))
    best = min(_timed(multiply, a) for _ in range(5))
    return 2 * size**3 * repeats / best * len(jax.devices())


def step_rate(model: DecoderConfig, rows: int, length: int, seconds: float) -> dict[str, Any]:
    """Measures the step over packed rows, dispatched ahead as in the loop: tokens per second, compile time, memory."""
    config = StepConfig(model, Mle(), OptimizerConfig(), ScheduleConfig(), steps=1000, sources=2)
    mesh = parse_mesh("fsdp:-1")
    rng = np.random.default_rng(0)
    segments = 1 + (np.arange(length)[None] * 3 // length).repeat(rows, 0).astype(np.int32)
    tokens = rng.integers(0, model.vocab_size, (rows, length), np.int32)
    with jax.set_mesh(mesh):
        step = make_train_step(config, mesh)
        batch = jax.device_put(Batch({"tokens": tokens, "segments": segments}, segments[:, 0] * 0), step.batch)
        state, fixed = step.start(step.fresh_params(0))
        start = time.perf_counter()
        state, values = step.run(state, fixed, batch)
        jax.block_until_ready(values)
        compiled, steps = time.perf_counter() - start, 0
        state, before = step.run(state, fixed, batch)
        jax.block_until_ready(before)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            state, values = step.run(state, fixed, batch)
            jax.block_until_ready(before)  # one step late
            before, steps = values, steps + 1
        jax.block_until_ready(before)
        passed = time.perf_counter() - start
        kernel = choose_kernel(model, length)
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "tokens_per_second": steps * rows * length / passed,
        "compile": compiled,
        "hbm_peak": stats.get("peak_bytes_in_use", 0),
        "attention": kernel,
        "device": f"{len(jax.devices())} x {device.device_kind}",
    }


def _timed(run: Any, *operands: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*operands))
    return time.perf_counter() - start
