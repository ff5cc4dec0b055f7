"""This side is the package's own train step, as the loop calls it."""

from __future__ import annotations

import jax
import timing

from alignpre_jax.foundation import build
from alignpre_jax.mixture import Batch
from alignpre_jax.model import DecoderConfig, parse_mesh
from alignpre_jax.objectives import Mle
from alignpre_jax.training import OptimizerConfig, ScheduleConfig, StepConfig, make_train_step


def main() -> None:
    """Times this side."""
    given = timing.arguments()
    shape = {name: value for name, value in given.shape.items() if name not in ("rows", "length")}
    model = build(DecoderConfig, shape, where="shape")
    config = StepConfig(model, Mle(), OptimizerConfig(), ScheduleConfig(), steps=1000, sources=2)
    mesh = parse_mesh("fsdp:-1")
    with jax.set_mesh(mesh):
        step = make_train_step(config, mesh)
        tokens, segments = timing.example_rows(given.shape)
        batch = jax.device_put(Batch({"tokens": tokens, "segments": segments}, segments[:, 0] * 0), step.batch)
        state, fixed = step.start(step.fresh_params(0))

        def update():
            nonlocal state
            state, values = step.run(state, fixed, batch)
            return values

        timing.measure(update, jax.block_until_ready, given.shape, given.seconds)


if __name__ == "__main__":
    main()
