"""Training speed of the small world's model on one CPU thread, beside a plain optax loop over the same shapes.

    python tools/bench_train.py [--json=FILE] [--seconds=10] [--rounds=2]

Each side runs in processes of its own, taking turns; tokens per second of CPU time do not depend on what else the
machine does. The peer is what one would write first: the same decoder (RMS
norm, rotary, SwiGLU, tied table, attention inside segments) on [B, L, D] arrays, full logits, AdamW with clipping.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ROWS, LENGTH, STEPS = 16, 128, 1000
ONE_THREAD = {"NPROC": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def ours() -> tuple[Callable, Any, Any]:
    """(step, state, batch) of this package's train step."""
    import jax

    from alignpre_jax.mixture import Batch
    from alignpre_jax.model import get_preset
    from alignpre_jax.objectives import ObjectiveConfig
    from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step, parse_mesh

    config = StepConfig(get_preset("small_world"), ObjectiveConfig(), OptimizerConfig(), ScheduleConfig(), STEPS, 2)
    step = make_train_step(config, parse_mesh("fsdp:-1"))
    tokens, segments = example_rows()
    batch = jax.device_put(Batch(tokens, segments, (segments[:, 0] * 0)), step.batch)
    return step.run, step.init(step.fresh_params(0)), batch


def peer() -> tuple[Callable, Any, Any]:
    """The same for the plain loop."""
    import jax
    import jax.numpy as jnp
    import optax

    from alignpre_jax.model import get_preset

    c = get_preset("small_world")
    D, H, h, F = c.width, c.heads, c.head_dim, c.mlp_width
    shapes = {
        "q": (D, H, h),
        "k": (D, H, h),
        "v": (D, H, h),
        "o": (H, h, D),
        "gate": (D, F),
        "up": (D, F),
        "down": (F, D),
    }
    keys = iter(jax.random.split(jax.random.key(0), 100))
    matrix = lambda shape: 0.02 * jax.random.normal(next(keys), shape)  # noqa: E731
    layers = [
        {n: matrix(s) for n, s in shapes.items()} | {"n1": jnp.ones(D), "n2": jnp.ones(D)} for _ in range(c.layers)
    ]
    params = {"table": matrix((c.vocab_size, D)), "layers": layers, "norm": jnp.ones(D)}
    angle = jnp.arange(LENGTH)[:, None] * c.rotary_base ** -(jnp.arange(0, h, 2) / h)

    def norm(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + c.norm_epsilon) * scale

    def rotate(x):
        a, b = jnp.split(x, 2, -1)
        cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def loss(params, tokens, segments):
        x = params["table"][tokens]
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool)) & (segments[:, :, None] == segments[:, None])
        for w in params["layers"]:
            y = norm(x, w["n1"])
            q, k, v = (jnp.einsum("bld,dhk->blhk", y, w[n]) for n in "qkv")
            scores = jnp.einsum("bqhk,bthk->bhqt", rotate(q), rotate(k)) / h**0.5
            weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30))
            x = x + jnp.einsum("bhqt,bthk,hkd->bqd", weights, v, w["o"])
            y = norm(x, w["n2"])
            x = x + (jax.nn.silu(y @ w["gate"]) * (y @ w["up"])) @ w["down"]
        logits = norm(x, params["norm"])[:, :-1] @ params["table"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    schedule = optax.cosine_decay_schedule(3e-4, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, 0.9, 0.95, weight_decay=0.1))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    return step, (params, optimizer.init(params)), jax.device_put(example_rows())


def example_rows() -> tuple[Any, Any]:
    """int32 [ROWS, LENGTH] tokens and segments, three documents in each row."""
    import numpy as np

    rng = np.random.default_rng(0)
    segments = 1 + (np.arange(LENGTH)[None] * 3 // LENGTH).repeat(ROWS, 0)
    return rng.integers(0, 2048, (ROWS, LENGTH), np.int32), segments.astype(np.int32)


def measure(side: str, seconds: float) -> dict[str, float]:
    """Compile seconds, and steady tokens per second of the clock and of CPU time, of one side, in this process."""
    import jax

    step, state, batch = {"ours": ours, "peer": peer}[side]()
    start = time.perf_counter()
    state, out = step(state, batch)
    jax.block_until_ready(out)
    compiled = time.perf_counter()
    for _ in range(3):
        state, out = step(state, batch)
    jax.block_until_ready(out)
    steady, busy, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - steady < seconds:
        state, out = step(state, batch)
        jax.block_until_ready(out)
        steps += 1
    tokens = steps * ROWS * LENGTH
    speeds = {"speed": tokens / (time.perf_counter() - steady), "cpu_speed": tokens / (time.process_time() - busy)}
    return {"compile": compiled - start} | speeds


def main() -> None:
    """Prints the table; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="", help="write the figures here")
    parser.add_argument("--seconds", type=float, default=10.0, help="of steady training per round and side")
    parser.add_argument("--rounds", type=int, default=2, help="the median counts")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.seconds)))
        return

    found: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for _ in range(given.rounds):
        for side, runs in found.items():
            command = [sys.executable, __file__, f"--side={side}", f"--seconds={given.seconds}"]
            done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))

    rows: list[dict[str, Any]] = []
    metrics = (("train_speed", "tokens/s"), ("train_cpu_speed", "tokens/CPU-s"), ("train_compile", "s"))
    for metric, unit in metrics:
        key = metric.removeprefix("train_")
        value, against = (statistics.median(each[key] for each in found[side]) for side in ("ours", "peer"))
        row = {"metric": metric, "value": value, "unit": unit, "peer": "plain optax loop", "peer_value": against}
        rows.append(row | {"ratio": value / against})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "optax", "flax"))
    print(f"small_world, {ROWS} x {LENGTH} tokens per step, 1 thread of {os.cpu_count()} cores")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    for row in rows:
        figures = f"{row['value']:>10,.1f}  {row['peer']} {row['peer_value']:>10,.1f} {row['unit']:<12}"
        print(f"{row['metric']:<15} {figures} ratio {row['ratio']:.2f}")
    if given.json:
        with open(given.json, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
