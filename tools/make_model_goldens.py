"""Writes what Hugging Face's models compute, for the tests of our decoder.

Needs torch (CPU) and transformers, which nothing else does; the tests only read the files:

    python tools/make_model_goldens.py tests/model/goldens

Each FAMILY.npz holds random tiny weights under their Hugging Face names ("weight/..."), int32 tokens and segments,
the logits of the whole rows ("logits") and of rows whose segments cannot see each other ("packed_logits"), the mean
cross-entropy of the packed rows ("loss"), gradients of it ("gradient/...", the first layer's) and the norms of all of
its gradients ("gradient_norms", in the order of the sorted names of the weights).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

VOCAB, LAYERS, WIDTH, MLP, LENGTH = 36, 2, 16, 20, 12
SEGMENTS = [[1] * 5 + [2] * 4 + [3] * 3, [1] * 12]
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": MLP,
    "max_position_embeddings": 32,
    "attn_implementation": "eager",
    "use_cache": False,
}


def models() -> dict[str, torch.nn.Module]:
    """Makes a tiny model of each family."""
    t = transformers
    neox = t.GPTNeoXConfig(**COMMON, rotary_pct=0.5, use_parallel_residual=True, hidden_act="gelu")
    llama = t.LlamaConfig(**COMMON, num_key_value_heads=2, head_dim=4, tie_word_embeddings=False)
    qwen3 = t.Qwen3Config(**COMMON, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6)
    olmo2 = t.Olmo2Config(**COMMON, num_key_value_heads=2, rms_norm_eps=1e-6, pad_token_id=None, eos_token_id=None)
    return {
        "gpt_neox": t.GPTNeoXForCausalLM(neox),
        "llama": t.LlamaForCausalLM(llama),
        "qwen3": t.Qwen3ForCausalLM(qwen3),
        "olmo2": t.Olmo2ForCausalLM(olmo2),
    }


def golden(model: torch.nn.Module, seed: int = 0) -> dict[str, np.ndarray]:
    """Computes everything that one file holds, for the weights and tokens of a seed."""
    model = model.float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if weight.ndim == 1 and not name.endswith("bias") else 0.3 * noise)
    tokens = torch.randint(0, VOCAB, (len(SEGMENTS), LENGTH), generator=generator)
    segments = torch.tensor(SEGMENTS)
    logits = model(input_ids=tokens).logits
    # Each segment is run on its own, from position 0: a packed row has to give the same at the segment's place.
    packed = torch.empty_like(logits)
    for row, ids in enumerate(segments):
        for segment in ids.unique():
            packed[row, ids == segment] = model(input_ids=tokens[row, ids == segment][None]).logits[0]
    loss = torch.nn.functional.cross_entropy(packed[:, :-1].reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
    loss.backward()
    arrays = {"tokens": tokens, "segments": segments, "logits": logits, "packed_logits": packed, "loss": loss}
    # Pythia's checkpoints call the output layer embed_out; transformers 5 renames it when it loads them.
    is_neox = isinstance(model, transformers.GPTNeoXForCausalLM)
    rename = {"lm_head.weight": "embed_out.weight"} if is_neox else {}
    parameters = {rename.get(name, name): weight for name, weight in model.named_parameters()}
    for name, weight in parameters.items():
        arrays[f"weight/{name}"] = weight
        if "layers.0" in name or "layers" not in name:
            arrays[f"gradient/{name}"] = weight.grad
    arrays["gradient_norms"] = torch.stack([parameters[name].grad.norm() for name in sorted(parameters)])
    plain = {name: value.detach().numpy() for name, value in arrays.items()}
    return {n: v.astype(np.int32 if v.dtype == np.int64 else np.float32) for n, v in plain.items()}


def main(folder: str) -> None:
    """Writes FOLDER/FAMILY.npz for every family."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for family, model in models().items():
        np.savez_compressed(Path(folder) / f"{family}.npz", allow_pickle=False, **golden(model))
        print(family, (Path(folder) / f"{family}.npz").stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
