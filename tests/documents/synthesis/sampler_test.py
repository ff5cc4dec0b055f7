import dataclasses
import json

from alignpre_jax.documents.synthesis import SamplerGenerator, SynthesisConfig, synthesize


@dataclasses.dataclass(frozen=True)
class Sharp:
    temperature: float = 0.5


class Words:
    """Counts words as tokens."""

    def encode_batch(self, texts):
        return [list(range(len(text.split()))) for text in texts]


class Engine:
    """Continues a prompt with words that its prompt and its seed decide, `length` of them."""

    def __init__(self, length):
        self.tokenizer, self.length, self.batches = Words(), length, []

    def generate(self, prompts, strategy, max_new_tokens, seed):
        assert isinstance(strategy, Sharp)
        self.batches.append(len(prompts))
        words = min(self.length, max_new_tokens)
        return [
            " ".join(f" {len(prompt)}x{start}w{i}." if i % 10 == 9 else f"w{i}" for i in range(words))
            for prompt, start in zip(prompts, seed, strict=True)
        ]


CONFIG = SynthesisConfig(forms=("film", "paper"), document_tokens=100)


def made(engine, situations, folder, **settings):
    report = synthesize(situations, CONFIG, SamplerGenerator(engine, Sharp(), "run@5", **settings), folder)
    lines = (folder / "documents" / "aligned.jsonl").read_text().splitlines()
    return report, [json.loads(line) for line in lines]


def test_a_model_continues_the_opening(situations, tmp_path):
    engine = Engine(60)
    report, documents = made(engine, situations, tmp_path / "a", batch=5)
    assert engine.batches == [5, 5, 2]
    assert (report.documents, report.calls, report.completion_tokens) == (12, 12, 12 * 60)
    assert documents[0]["text"].startswith("The film")
    assert documents[1]["text"].startswith("Abstract. We")
    assert documents[0]["labels"]["generator"] == "checkpoint:run@5"
    _, again = made(Engine(60), situations, tmp_path / "b", batch=32)
    assert again == documents


def test_a_text_that_used_up_its_tokens_ends_with_a_sentence(situations, tmp_path):
    _, documents = made(Engine(1000), situations, tmp_path)
    assert all(document["text"].endswith("w99.") for document in documents)
    _, documents = made(Engine(75), situations, tmp_path / "short")
    assert all(document["text"].endswith(" w74") for document in documents)


def test_another_model_or_strategy_makes_its_own_documents(situations, tmp_path):
    first, _ = made(Engine(60), situations, tmp_path)
    same, _ = made(Engine(60), situations, tmp_path)
    other = synthesize(situations, CONFIG, SamplerGenerator(Engine(61), Sharp(0.7), "run@5"), tmp_path)
    assert (first.calls_now, same.calls_now, other.calls_now) == (12, 0, 12)
