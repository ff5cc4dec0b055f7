"""This side is what one would write first: a decoder on [B, L, D] arrays, full logits, AdamW with clipping."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
import timing


def main() -> None:
    """Times this side."""
    given = timing.arguments()
    c, L = given.shape, given.shape["length"]
    D, H, h, F = c["width"], c["heads"], c["head_dim"], c["mlp_width"]
    shapes = dict.fromkeys("qkv", (D, H, h)) | {"o": (H, h, D), "gate": (D, F), "up": (D, F), "down": (F, D)}
    keys = iter(jax.random.split(jax.random.key(0), 1 + 7 * c["layers"]))
    matrix = lambda shape: 0.02 * jax.random.normal(next(keys), shape)  # noqa: E731
    norms = {"n1": jnp.ones(D), "n2": jnp.ones(D)}
    layers = [{n: matrix(s) for n, s in shapes.items()} | norms for _ in range(c["layers"])]
    params = {"table": matrix((c["vocab_size"], D)), "layers": layers, "norm": jnp.ones(D)}
    params = jax.tree.map(jnp.copy, params)  # shared arrays cannot be donated
    angle = jnp.arange(L)[:, None] * c["rotary_base"] ** -(jnp.arange(0, h, 2) / h)

    def norm(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + c["norm_epsilon"]) * scale

    def rotate(x):
        a, b = jnp.split(x, 2, -1)
        cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def loss(params, tokens, segments):
        x = params["table"][tokens]
        mask = jnp.tril(jnp.ones((L, L), bool)) & (segments[:, :, None] == segments[:, None])
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

    schedule = optax.cosine_decay_schedule(3e-4, 1000)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, 0.9, 0.95, weight_decay=0.1))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, moments, tokens, segments):
        value, gradients = jax.value_and_grad(loss)(params, tokens, segments)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, value

    state, batch = (params, optimizer.init(params)), jax.device_put(timing.example_rows(c))

    def update():
        nonlocal state
        *state, value = step(*state, *batch)
        return value

    timing.measure(update, jax.block_until_ready, c, given.seconds)


if __name__ == "__main__":
    main()
