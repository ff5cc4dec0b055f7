"""Greedy text, log-probs and the chat template of transformers; runs where torch and transformers are installed.

With $SMOLLM2 set to the folder of SmolLM2-135M(-Instruct), also with real weights.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from alignpre_jax.model import make_mesh
from alignpre_jax.model.hf import import_model
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.sampling import Buckets, Engine, Greedy, Request, chat_request

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GOLDENS = Path(__file__).parents[1] / "model" / "goldens" / "hf"
PROMPTS = [
    "The AI system found a fault and",
    "",
    "Question: is it safe to stop the lift between two floors?\nAnswer:",
    "def add(a, b):\n    ",
]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Text is token ids with spaces between."""

    vocab_size: int
    eot_id: int = 0

    def encode_batch(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids):
        return " ".join(map(str, ids))


def greedy_without(model, ids, count, banned):
    """Token by token, a whole forward pass for each."""
    ids, start = list(ids), len(ids)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([ids])).logits[0, -1]
            logits[list(banned)] = -torch.inf
            ids.append(int(logits.argmax()))
    return ids[start:]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["neox", "llama_tied", "qwen3", "olmo2"])
def test_greedy_tokens_are_those_of_transformers(variant):
    import jax

    theirs = transformers.AutoModelForCausalLM.from_pretrained(GOLDENS / variant, dtype=torch.float32).eval()
    ours = import_model(GOLDENS / variant, make_mesh({"fsdp": 1}, jax.devices()[:1]), dtype="float32")
    engine = Engine(
        ours.params,
        ours.config,
        Numbers(ours.config.vocab_size),
        buckets=Buckets(length=32, tokens=64, rows=2, steps=4),
    )
    draw = np.random.default_rng(0)
    prompts = [(0, *draw.integers(1, ours.config.vocab_size, size).tolist()) for size in (3, 9, 1)]
    count = min(10, ours.config.max_length - 10)
    banned = (0,)
    for prompt, found in zip(
        prompts, engine.complete([Request(p, Greedy(), count, banned=banned) for p in prompts]), strict=True
    ):
        wanted = greedy_without(theirs, prompt, count, banned)
        assert list(found.tokens) == wanted


@pytest.fixture(scope="module")
def smol():
    folder = os.environ.get("SMOLLM2", "")
    if not folder:
        pytest.skip("$SMOLLM2 is not set")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return folder, theirs, Engine.from_checkpoint(folder, dtype="float32", buckets=Buckets(rows=8))


@pytest.mark.slow
def test_real_weights_greedy_token_by_token(smol):
    folder, theirs, engine = smol
    codec = load_tokenizer(folder)
    found = engine.complete([Request(prompt, Greedy(), 32) for prompt in PROMPTS])
    for prompt, completion in zip(PROMPTS, found, strict=True):
        wanted = greedy_without(theirs, [codec.eot_id, *codec.encode(prompt)], 32, ())
        wanted = wanted[: wanted.index(codec.eot_id)] if codec.eot_id in wanted else wanted
        assert list(completion.tokens) == wanted


@pytest.mark.slow
def test_real_weights_log_probs(smol):
    folder, theirs, engine = smol
    codec = load_tokenizer(folder)
    asked = [(prompt, (" yes", " no, it is not safe.")) for prompt in PROMPTS]
    for (prompt, options), scores in zip(asked, engine.score(asked), strict=True):
        for option, score in zip(options, scores, strict=True):
            prefix, target = [codec.eot_id, *codec.encode(prompt)], codec.encode(option)
            with torch.no_grad():
                logits = theirs(torch.tensor([prefix + target])).logits[0, len(prefix) - 1 : -1]
            wanted = torch.log_softmax(logits, -1)[torch.arange(len(target)), torch.tensor(target)].sum()
            assert score.logprob == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.slow
def test_real_chat_template(smol):
    _, _, engine = smol
    messages = [{"role": "user", "content": "What is the capital of France? <|im_end|>"}]
    request = chat_request(engine, messages, max_new_tokens=24)
    assert request.ends == (engine.tokenizer.special_tokens["<|im_end|>"],)
    (completion,) = engine.complete([request])
    assert "Paris" in completion.text
    assert completion.ended == "end"
