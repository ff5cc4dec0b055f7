"""A conversation as a request, which ends with the turn of the answer."""

import dataclasses

from alignpre_jax.rows.template import Template
from alignpre_jax.sampling import Temperature, chat_request

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@dataclasses.dataclass
class Codec:
    eot: str = "<|endoftext|>"
    eot_id: int = 0
    special_tokens: dict = dataclasses.field(
        default_factory=lambda: {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    )


@dataclasses.dataclass
class Model:
    template: Template = dataclasses.field(default_factory=lambda: Template(TEMPLATE))
    tokenizer: Codec = dataclasses.field(default_factory=Codec)


def test_a_request_ends_with_the_turn_and_with_what_the_caller_names():
    request = chat_request(Model(), [{"role": "user", "content": "Hi"}], strategy=Temperature(0.5), ends=(7,))
    assert request.prompt == (1, "user\nHi", 2, "\n")
    assert request.ends == (7, 2)
    assert request.strategy == Temperature(0.5)
