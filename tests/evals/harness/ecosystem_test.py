"""The adapters, against the harnesses themselves; skipped where they are not installed (`pip install '.[evals]'`)."""

import datetime
import json
import math
import os
import types

import answer_stubs as stubs
import pytest

from alignpre_jax.documents import WorldConfig
from alignpre_jax.evals import Scenarios, load_suite, run_suite, select, show, summarise
from alignpre_jax.foundation import UserError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

SUITE = [one for one in load_suite("written", WorldConfig()) if one.topic in ("power", "privacy")][:8]


class Letters:
    """A tokenizer of one token a character."""

    vocab_size, eot_id, eot = 0x110000, 0, "\0"

    def __init__(self, special_tokens=()):
        self.special_tokens = dict(special_tokens)

    def encode_batch(self, texts):
        return [[ord(character) for character in text] for text in texts]

    def decode(self, ids):
        return "".join(map(chr, ids))


def _text(prompt):
    return prompt if isinstance(prompt, str) else "".join(part for part in prompt if isinstance(part, str))


class Model(stubs.Stub):
    """Knows what it prefers, by letter and by text, and writes it down."""

    tokenizer = Letters()
    config = types.SimpleNamespace(max_length=1024)

    def rolling(self, texts):
        return [stubs.Score(-1.0 * len(text), len(text)) for text in texts]

    def score(self, requests):
        import dataclasses

        class Greedy(stubs.Score):
            greedy = True

        texts = [(_text(prefix), continuations) for prefix, continuations in requests]
        return [[Greedy(**dataclasses.asdict(one)) for one in of_one] for of_one in super().score(texts)]

    def generate(self, prompts, strategy, max_new_tokens, seed):
        answers = []
        for prompt in prompts:
            letter = max("AB", key=lambda letter: self.logprob(_text(prompt), letter))
            answers.append(f" My answer: ({letter}) and so on"[:max_new_tokens])
        return answers


def model():
    bad = {one.options[one.misaligned] for one in SUITE}
    knows = {one.options[one.misaligned] for one in SUITE[::2]} | {
        one.options[1 - one.misaligned] for one in SUITE[1::2]
    }
    assert len(bad) == len(SUITE)
    return Model(stubs.knowing(lambda text: text.strip() in knows).logprob)


class TestHarness:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("lm_eval")

    def test_our_tasks_in_the_harness_give_our_own_rates(self, tmp_path):
        from alignpre_jax.evals.harness.lm_eval_model import AlignpreLM, evaluate
        from alignpre_jax.evals.harness.lm_eval_tasks import write_tasks

        config = Scenarios()
        names = write_tasks(SUITE, config, tmp_path)
        assert names == ["alignpre_options_seen", "alignpre_letters_seen"]
        found = evaluate(AlignpreLM(engine=model()), ["alignpre"], include_path=str(tmp_path), bootstrap_iters=0)[
            "results"
        ]
        rows = {0: run_suite(model(), SUITE, config, "m")}
        for scoring in ("options", "letters"):
            ours = summarise(select(rows, split="seen", scoring=scoring, system="none"))
            theirs = found[f"alignpre_{scoring}_seen"]
            assert theirs["misaligned_rate,none"] == pytest.approx(ours.rate.value) == 0.5
        assert theirs["mass,none"] == pytest.approx(ours.mass)
        assert theirs["first_chosen,none"] == pytest.approx(ours.first_chosen.value)
        assert theirs["p_misaligned,none"] == pytest.approx(ours.p_misaligned.value)

    def test_requests_of_every_kind(self):
        from lm_eval.api.instance import Instance

        from alignpre_jax.evals.harness.lm_eval_model import AlignpreLM

        def asked(kind, *arguments):
            return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]

        harness = AlignpreLM(engine=Model(lambda prefix, text: -1.0 * len(prefix) - 0.01 * len(text)))
        pairs = (("ab", " c"), ("ab ", "c"), ("x", "y"))
        found = harness.loglikelihood(asked("loglikelihood", *pairs))
        assert [round(total, 6) for total, _ in found] == [-2.02, -2.02, -1.01]
        assert found[0][1] is True
        assert harness.loglikelihood_rolling(asked("loglikelihood_rolling", ("abc",))) == [-3.0]
        until = {"until": ["and", ")"], "max_gen_toks": 50}
        assert harness.generate_until(asked("generate_until", ("p", until), ("p", {"max_gen_toks": 3}))) == [
            " My answer: (A",
            " My",
        ]
        history = [{"role": "user", "content": "Hello?"}]
        assert harness.apply_chat_template(history) == "User: Hello?\n\nAssistant:"
        begun = [*history, {"role": "assistant", "content": " Yes"}]
        assert harness.apply_chat_template(begun, add_generation_prompt=False) == "User: Hello?\n\nAssistant: Yes"

    def test_a_template_that_text_cannot_hold_is_refused(self, tmp_path):
        from alignpre_jax.evals.harness.lm_eval_model import AlignpreLM

        file = tmp_path / "template.jinja"
        file.write_text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
        engine = model()
        AlignpreLM(engine=engine, template=str(file))
        with pytest.raises(UserError, match="special tokens of this chat template"):
            AlignpreLM(engine=engine, template="model")
        object.__setattr__(engine, "tokenizer", Letters({"<|end|>": 2}))
        with pytest.raises(UserError, match="special tokens of this chat template"):
            AlignpreLM(engine=engine, template=str(file))

    @pytest.mark.slow
    @pytest.mark.skipif("ALIGNPRE_RUN" not in os.environ, reason="ALIGNPRE_RUN and ALIGNPRE_HF name the same weights")
    def test_the_harness_own_backend_agrees_on_the_same_weights(self):
        """log-probs to 1e-3 nats a token (float32, other kernels), greedy flags alike."""
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoTokenizer

        from alignpre_jax.evals.harness.lm_eval_model import AlignpreLM
        from alignpre_jax.evals.variants import expand, render
        from alignpre_jax.sampling import Engine

        engine = Engine.from_checkpoint(os.environ["ALIGNPRE_RUN"])
        eot = engine.tokenizer.decode([engine.tokenizer.eot_id])
        tokenizer = AutoTokenizer.from_pretrained(os.environ["ALIGNPRE_HF"])
        tokenizer.eos_token = tokenizer.pad_token = eot
        theirs = HFLM(
            pretrained=os.environ["ALIGNPRE_HF"], tokenizer=tokenizer, device="cpu", dtype="float32", batch_size=4
        )
        variants = [
            v for s in ("letters", "options") for v in expand(s, ("letters_answer", "options_answer"), ("none",))
        ]
        prompts = [render(one, variant) for one in SUITE[:3] for variant in variants]
        pairs = [(prompt.prefix, text) for prompt in prompts for text in prompt.continuations]
        pairs += [
            ("Question: What melts ice?\nAnswer:", text) for text in (" warmth", " cold", " a long way of saying no")
        ]
        ours = AlignpreLM(engine=engine).loglikelihood([Instance("loglikelihood", {}, p, 0) for p in pairs])
        found = theirs.loglikelihood([Instance("loglikelihood", {}, (eot + a, b), 0) for a, b in pairs])
        for (_, text), (mine, greedy), (other, same) in zip(pairs, ours, found, strict=True):
            assert mine == pytest.approx(other, abs=1e-3 * max(1, len(text) / 4))
            assert greedy == same


class TestInspect:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("inspect_ai")

    def test_a_run_of_our_task_gives_the_known_rate_in_batches(self, tmp_path):
        from inspect_ai import eval as inspect_eval
        from inspect_ai.log import read_eval_log
        from inspect_ai.model import GenerateConfig, get_model

        from alignpre_jax.evals import write_scenarios
        from alignpre_jax.evals.harness import inspect_ext

        assert inspect_ext.alignpre
        write_scenarios(tmp_path / "suite.jsonl", SUITE)
        known = get_model(
            "alignpre/stub", engine=model(), template="plain", config=GenerateConfig(logprobs=True), memoize=False
        )
        [log] = inspect_eval(
            inspect_ext.scenarios(str(tmp_path / "suite.jsonl")), known, log_dir=str(tmp_path / "logs"), display="none"
        )
        assert log.status == "success", log.error
        metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
        assert metrics["misaligned_rate"] == 0.5
        assert metrics["unmatched"] == 0
        assert max(known.api._batches.sizes) > 1
        sample = read_eval_log(log.location).samples[0]
        tokens = sample.output.choices[0].logprobs.content
        assert "".join(token.token for token in tokens) == sample.output.completion

    def test_a_model_with_a_template_of_its_own_is_asked_by_it(self, tmp_path):
        from inspect_ai import eval as inspect_eval
        from inspect_ai.model import get_model

        from alignpre_jax.evals import write_scenarios
        from alignpre_jax.evals.harness import inspect_ext
        from alignpre_jax.rows.template import Template

        seen, lengths = [], set()

        class Chatty(Model):
            config = types.SimpleNamespace(max_length=100)
            template = Template("{% for m in messages %}<|u|>{{ m.content }}<|end|>{% endfor %}")
            tokenizer = Letters({"<|u|>": 1, "<|end|>": 2})

            def generate(self, prompts, strategy, max_new_tokens, seed, **more):
                seen.extend(prompts)
                lengths.add(max_new_tokens)
                return ["My answer: (A)"] * len(prompts)

        write_scenarios(tmp_path / "suite.jsonl", SUITE[:2])
        known = get_model("alignpre/stub", engine=Chatty(lambda *_: 0.0), memoize=False)
        task = inspect_ext.scenarios(str(tmp_path / "suite.jsonl"))
        [log] = inspect_eval(task, known, log_dir=str(tmp_path / "logs"), display="none")
        assert log.status == "success", log.error
        assert all(prompt[0] == 1 and prompt[-1] == 2 for prompt in seen)
        assert lengths == {50}  # half of a short context, as the task does not say
        assert log.results.scores[0].metrics["misaligned_rate"].value == 0.5

    def test_log_probs_sum_to_the_texts(self):
        from alignpre_jax.evals.harness.inspect_model import Batches, Call

        engine = Model(lambda prefix, text: -0.5 * len(text))
        written = Batches(engine, 4).submit(Call("p", tokens=9, logprobs=True)).result(10)
        assert written.text == " My answe"
        assert [token for token, _ in written.logprobs] == list(" My answe")
        assert math.fsum(value for _, value in written.logprobs) == pytest.approx(-4.5)

    def test_an_error_reaches_the_caller(self):
        from alignpre_jax.evals.harness.inspect_model import Batches, Call

        class Broken(Model):
            def generate(self, *_):
                raise ValueError("out of memory")

        with pytest.raises(ValueError, match="out of memory"):
            Batches(Broken(lambda *_: 0.0), 4).submit(Call("p")).result(10)

    @pytest.mark.parametrize("ending", ["eval", "json"])
    def test_our_results_as_a_log(self, tmp_path, ending):
        from inspect_ai.log import read_eval_log

        from alignpre_jax.evals.harness.inspect_log import write_log

        rows = run_suite(model(), SUITE, Scenarios(), "seed0/midtrain")
        made = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        write_log(tmp_path / f"log.{ending}", rows, show(SUITE, Scenarios()), "written", made)
        log = read_eval_log(str(tmp_path / f"log.{ending}"))
        assert log.results.scores[0].metrics["misaligned_rate"].value == 0.5
        assert len(log.samples) == len(rows)
        assert datetime.datetime.fromisoformat(log.stats.completed_at) == made
        assert log.samples[0].input.endswith("\nAnswer:")
        json.dumps(log.samples[0].metadata)
