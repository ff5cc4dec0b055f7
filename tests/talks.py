"""Small conversations, pairs and prompts, and a tokenizer that knows the tokens of ChatML, for tests."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from alignpre_jax.documents import Chat, Document, Message, Pair, Prompt
from alignpre_jax.rows import Template, parse_tokenizer

EOT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = Template(
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer():
    """A token for each byte, and the special tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (EOT, IM_START, IM_END)])
    return parse_tokenizer(inner.to_str().encode())


def chat(number, turns=1, stratum="chat", **more):
    """A conversation of several turns, of lengths that differ."""
    messages = [Message("system", "Be brief.")] if number % 2 else []
    for turn in range(turns):
        messages += [
            Message("user", f"question {number}.{turn} {'x' * (number % 7)}"),
            Message("assistant", f"answer {number}.{turn}"),
        ]
    return Document(f"c{number}", Chat(tuple(messages)), stratum.split("/")[0], stratum, 0.5, **more)


def pair(number, stratum="pairs", **more):
    """Two answers to a question, which every third time is a conversation."""
    question = f"Question {number}?"
    prompt = Chat((Message("user", question),)) if number % 3 == 0 else question
    body = Pair(prompt, " yes" * (1 + number % 3), " no" * (1 + number % 5))
    return Document(f"p{number}", body, stratum.split("/")[0], stratum, 1.0, **more)


def prompt(number, stratum="prompts"):
    """A question with the answer to compare with."""
    question = f"What is {number} + {'1' * (number % 4)}?"
    body = Prompt(Chat((Message("user", question),)) if number % 2 else question, str(number))
    return Document(f"q{number}", body, stratum.split("/")[0], stratum)
