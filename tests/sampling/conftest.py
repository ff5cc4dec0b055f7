"""A tiny model with random weights and a tokenizer of single characters."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.model import DecoderConfig, parameters
from alignpre_jax.model.trees import nest
from alignpre_jax.sampling import Buckets, Engine

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .?"


@dataclasses.dataclass(frozen=True)
class Characters:
    """Token 0 is end-of-text; the others are single characters."""

    vocab_size: int = 1 + len(CHARACTERS)
    eot_id: int = 0

    def encode_batch(self, texts):
        return [[1 + CHARACTERS.index(character) for character in text] for text in texts]

    def token_bytes(self, i):
        return self.decode([i]).encode()

    def decode(self, ids):
        return "".join("<|endoftext|>" if i == 0 else CHARACTERS[i - 1] for i in ids)


CONFIG = DecoderConfig(
    vocab_size=Characters().vocab_size,
    layers=2,
    width=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_width=16,
    tied_embeddings=True,
    max_length=48,
    layout="unroll",
    dtype="float32",
)
BUCKETS = Buckets(length=32, tokens=64, logits_bytes=4 * CONFIG.vocab_size * 16, rows=4, steps=4)


@pytest.fixture(scope="session")
def params():
    # Ten times the usual scale: a model with opinions. Drawn on the host, which compiles nothing.
    random = np.random.default_rng(0)
    table = parameters(CONFIG).items()
    drawn = {name: p.mean + 10 * p.std * random.standard_normal(p.shape) for name, p in table}
    return nest({name: jnp.asarray(value, jnp.float32) for name, value in drawn.items()})


@pytest.fixture
def engine(params):
    return Engine(params, CONFIG, Characters(), buckets=BUCKETS)
