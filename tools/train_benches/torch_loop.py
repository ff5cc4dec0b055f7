"""This side is transformers' Llama with torch's AdamW: eager, SDPA attention, documents kept apart by a mask."""

from __future__ import annotations

import os

import timing
import torch
import transformers


def main() -> None:
    """Times this side."""
    torch.set_num_threads(int(os.environ.get("NPROC", "1")))
    given = timing.arguments()
    c = given.shape
    config = transformers.LlamaConfig(
        vocab_size=c["vocab_size"],
        hidden_size=c["width"],
        intermediate_size=c["mlp_width"],
        num_hidden_layers=c["layers"],
        num_attention_heads=c["heads"],
        num_key_value_heads=c["kv_heads"],
        head_dim=c["head_dim"],
        rms_norm_eps=c["norm_epsilon"],
        max_position_embeddings=c["length"],
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.LlamaForCausalLM(config)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    tokens, segments = (torch.from_numpy(x).long() for x in timing.example_rows(c))
    same = torch.tril(segments[:, None, :, None] == segments[:, None, None, :])

    def update():
        loss = model(input_ids=tokens, attention_mask=same, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return loss

    timing.measure(update, lambda loss: loss.item(), c, given.seconds)


if __name__ == "__main__":
    main()
