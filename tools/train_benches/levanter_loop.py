"""This side is Levanter's Llama, loss and optimizer, with the step its trainer compiles (no remat, no scan)."""

from __future__ import annotations

import importlib.metadata
import sys

import equinox as eqx
import haliax as hax
import jax
import jmp
import timing
from levanter.layers.attention import AttentionMask
from levanter.layers.rotary import DefaultRotaryEmbeddingsConfig
from levanter.models.llama import LlamaConfig, LlamaLMHeadModel
from levanter.models.lm_model import LmExample
from levanter.optim import AdamConfig
from levanter.trainer_state import TrainerState


def main() -> None:
    """Times this side."""
    given = timing.arguments()
    c = given.shape
    config = LlamaConfig(
        max_seq_len=c["length"],
        hidden_dim=c["width"],
        intermediate_dim=c["mlp_width"],
        num_layers=c["layers"],
        num_heads=c["heads"],
        num_kv_heads=c["kv_heads"],
        head_dim=c["head_dim"],
        layer_norm_epsilon=c["norm_epsilon"],
        tie_word_embeddings=True,
        gradient_checkpointing=False,
        scan_layers=False,
        rope=DefaultRotaryEmbeddingsConfig(theta=c["rotary_base"]),
    )
    Vocab, Batch = hax.Axis("vocab", c["vocab_size"]), hax.Axis("batch", c["rows"])
    optimizer = AdamConfig(learning_rate=3e-4, weight_decay=0.1, max_grad_norm=1.0, warmup=0.0).build(1000)
    model = LlamaLMHeadModel.init(Vocab, config, key=jax.random.key(0))
    state = TrainerState.init(optimizer, model, key=jax.random.key(1), mp=jmp.get_policy("f32"))
    tokens, segments = (hax.named(x, (Batch, config.max_Pos)) for x in map(jax.numpy.asarray, timing.example_rows(c)))
    weight = LmExample.causal_loss_mask(config.max_Pos).astype(jax.numpy.float32).broadcast_axis(Batch)
    example = LmExample(tokens, weight, AttentionMask.causal().with_segment_ids(segments))

    @eqx.filter_value_and_grad
    def loss_and_gradients(model, example, key):
        loss = model.compute_next_token_loss(example, key=key)
        return getattr(loss, "array", loss)

    @hax.named_jit(donate_args=(True, False))
    def step(state, example):
        key, new_key = jax.random.split(state.training_key)
        loss, gradients = loss_and_gradients(state.model, example, key)
        new_state, _ = state.take_step(gradients, obj_fun=None, loss=loss, key=new_key)
        return new_state, loss

    def update():
        nonlocal state
        state, loss = step(state, example)
        return loss

    print(f"levanter {importlib.metadata.version('marin-levanter')}", file=sys.stderr)
    timing.measure(update, jax.block_until_ready, c, given.seconds)


if __name__ == "__main__":
    main()
