"""Measures scoring and generation beside lm-evaluation-harness and transformers, on the same weights and questions.

    python tools/bench_sampler.py --model=HF_FOLDER --data=QUESTIONS.jsonl [--peer_python=PYTHON] [--json=FILE]

QUESTIONS.jsonl has {question, answer_matching_behavior, answer_not_matching_behavior} with "(A) ..." and "(B) ..."
lines in the question, as in github.com/anthropics/evals, advanced-ai-risk. Every item is asked in four syntaxes and
both orders, scored by the letter and by the full text of the option. PYTHON is an interpreter that has torch,
transformers and lm-eval; ours runs in this one. Both get the token ids from the same tokenizer file; each side runs in
a process of its own and warms up before its clock starts. The peer is lm-eval's HFLM, float32, at the best of a few
batch sizes; generation is compared with transformers' `generate` on one left-padded batch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IDENTITY = "You are an artificial intelligence."
CUES = ("\nAnswer: (", "\nResponse: (", "\nYour choice: (", "\nI choose: (")
NEW_TOKENS = 128
STOP = "\n\n"


def questions(path: str, count: int) -> list[tuple[str, tuple[str, str]]]:
    """The pairs (question, its two options) of the first `count` items that have exactly two options."""
    found = []
    for line in Path(path).read_text().splitlines():
        text = json.loads(line)["question"]
        parts = re.split(r"\n\s*\(([AB])\)\s*", text)
        if parts[1::2] == ["A", "B"]:
            asked = re.sub(r"\s*Choices:\s*$", "", parts[0].strip())
            found.append((asked, (parts[2].strip(), parts[4].strip())))
    return found[:count]


def requests(items: list[tuple[str, tuple[str, str]]]) -> list[tuple[str, tuple[str, str]]]:
    """For each item, syntax and order, the letters after "(" and the options' texts after the cue without "("."""
    made = []
    for asked, options in items:
        for order in (options, options[::-1]):
            body = f"{IDENTITY}\n{asked}\n(A) {order[0]}\n(B) {order[1]}"
            for cue in CUES:
                made.append((body + cue, ("A", "B")))
                made.append((body + cue.removesuffix(" ("), (f" {order[0]}", f" {order[1]}")))
    return made


def prompts(items: list[tuple[str, tuple[str, str]]], count: int) -> list[str]:
    """Makes prompts of mixed lengths: the question alone, or with its options, or after two other questions."""
    made = []
    for number in range(count):
        asked, options = items[number % len(items)]
        before = "\n".join(items[(number + k) % len(items)][0] for k in (1, 2)) + "\n" if number % 3 == 2 else ""
        shown = f"\n(A) {options[0]}\n(B) {options[1]}" if number % 3 == 1 else ""
        made.append(f"{before}{asked}{shown}\nAnswer:")
    return made


def ours(given: argparse.Namespace) -> dict[str, Any]:
    """Scores and generates with this package."""
    from alignpre_jax.sampling import Buckets, Engine, Greedy, keep_programs

    if given.cache:
        keep_programs(given.cache)
    engine = Engine.from_checkpoint(given.model, dtype="float32", buckets=Buckets(rows=given.rows))
    items = questions(given.data, given.items)
    asked = requests(items)
    started = time.perf_counter()
    engine.compile()
    engine.score(asked[: 16 * 32])
    found: dict[str, Any] = {"compile_s": time.perf_counter() - started}
    busy, clock = time.process_time(), time.perf_counter()
    scores = engine.score(asked)
    found |= {"score_s": time.perf_counter() - clock, "score_cpu_s": time.process_time() - busy}
    found["logprobs"] = [[score.logprob for score in both] for both in scores]
    going = prompts(items, given.prompts)
    engine.generate(going, Greedy(), given.tokens, stop=(STOP,))
    busy, clock = time.process_time(), time.perf_counter()
    texts = engine.generate(going, Greedy(), given.tokens, stop=(STOP,))
    found |= {"generate_s": time.perf_counter() - clock, "generate_cpu_s": time.process_time() - busy}
    found |= {"texts": texts, "programs": len(engine.programs.used)}
    return found | {"new_tokens": sum(map(len, engine.tokenizer.encode_batch(texts)))}


def peer(given: argparse.Namespace) -> dict[str, Any]:
    """Does the same with lm-eval's HFLM and with transformers."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer

    model = transformers.AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.model)
    codec = Tokenizer.from_file(f"{given.model}/tokenizer.json")
    eot = codec.token_to_id("<|endoftext|>")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
    items = questions(given.data, given.items)

    def ids(text: str) -> list[int]:
        return codec.encode(text, add_special_tokens=False).ids

    asked = [(("", ""), [eot, *ids(p)], ids(c)) for p, both in requests(items) for c in both]

    def score(some: list, batch: int) -> tuple[list[float], float, float]:
        lm.batch_size_per_gpu = batch
        busy, clock = time.process_time(), time.perf_counter()
        out = lm._loglikelihood_tokens(some, disable_tqdm=True)
        return [one[0] for one in out], time.perf_counter() - clock, time.process_time() - busy

    batches, sample = [int(batch) for batch in given.batches.split(",")], asked[:64]
    score(sample[:8], batches[0])
    best = min(batches, key=lambda batch: score(sample, batch)[2]) if len(batches) > 1 else batches[0]
    logprobs, wall, cpu = score(asked, best)
    found: dict[str, Any] = {"score_s": wall, "score_cpu_s": cpu, "batch": best}
    found["logprobs"] = [logprobs[n : n + 2] for n in range(0, len(logprobs), 2)]

    tokenizer.pad_token_id, tokenizer.padding_side = eot, "left"
    rows = [[eot, *ids(prompt)] for prompt in prompts(items, given.prompts)]
    longest = max(map(len, rows))
    batch = torch.tensor([[eot] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    options = {"attention_mask": mask, "max_new_tokens": given.tokens, "do_sample": False, "pad_token_id": eot}
    options |= {"eos_token_id": eot, "stop_strings": [STOP], "tokenizer": tokenizer}
    with torch.inference_mode():
        model.generate(batch[:4], **options | {"attention_mask": mask[:4], "max_new_tokens": 4})
        busy, clock = time.process_time(), time.perf_counter()
        out = model.generate(batch, **options)
    found |= {"generate_s": time.perf_counter() - clock, "generate_cpu_s": time.process_time() - busy}
    texts = []
    for row in out[:, longest:].tolist():
        end = row.index(eot) if eot in row else len(row)
        texts.append(codec.decode(row[:end], skip_special_tokens=False).split(STOP)[0])
    return found | {"texts": texts, "new_tokens": sum(len(ids(text)) for text in texts)}


def main() -> None:
    """Prints the table; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--data", required=True, help="questions, JSONL")
    parser.add_argument("--items", type=int, default=250)
    parser.add_argument("--prompts", type=int, default=64, help="texts to generate")
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS, help="at most so many new tokens each")
    parser.add_argument("--rows", type=int, default=64, help="that ours generates at a time")
    parser.add_argument("--batches", default="8,16,32", help="lm-eval's batch sizes to try")
    parser.add_argument("--peer_python", default=sys.executable, help="has torch, transformers, lm-eval")
    parser.add_argument("--threads", type=int, default=0, help="cores for each side; 0: all")
    parser.add_argument("--cache", default="", help="folder for our compiled programs")
    parser.add_argument("--json", default="", help="write the figures here")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        # This decides how many threads both sides use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads or None])
        Path(given.out).write_text(json.dumps({"ours": ours, "peer": peer}[given.side](given)))
        return

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, python in (("ours", sys.executable), ("peer", given.peer_python)):
            out = f"{folder}/{side}.json"
            command = [python, __file__, *sys.argv[1:], f"--side={side}", f"--out={out}"]
            quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
            quiet |= {"OMP_NUM_THREADS": str(given.threads)} if given.threads else {}
            subprocess.run(command, env=os.environ | quiet, check=True)
            found[side] = json.loads(Path(out).read_text())
    rows = table(given, found["ours"], found["peer"])
    mine, machine = found["ours"], platform.processor() or platform.machine()
    print(f"{given.items} items x {len(CUES)} syntaxes x 2 orders, letters and full options")
    print(f"ours: {mine['programs']} programs in {mine['compile_s']:.0f} s; lm-eval: batch {found['peer']['batch']}")
    print(f"{given.threads or os.cpu_count()} of {os.cpu_count()} cores, {machine}, load {os.getloadavg()[0]:.1f}")
    for row in rows:
        line = f"{row['metric']:<26} {row['value']:>12.4g}  {row['peer']:<22} {row['peer_value'] or 0:>10.4g}"
        print(f"{line} {row['unit']:<12} ratio {row['ratio']:.2f}" if row["ratio"] else f"{line} {row['unit']}")
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=2))


def table(given: argparse.Namespace, mine: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures in the form that all benches write."""
    rows: list[dict[str, Any]] = []

    def add(metric: str, unit: str, against: str, value: float, other: float, ratio: float | None) -> None:
        row = {"metric": metric, "value": value, "unit": unit, "peer": against, "peer_value": other, "ratio": ratio}
        rows.append(row)

    def speed(metric: str, unit: str, against: str, works: tuple[float, float], clock: str) -> None:
        value, other = works[0] / mine[clock], works[1] / theirs[clock]
        add(metric, unit, against, value, other, value / other)

    items = (given.items, given.items)
    speed("score_items", "items/s", "lm-eval HFLM", items, "score_s")
    speed("score_items_cpu", "items/CPU-s", "lm-eval HFLM", items, "score_cpu_s")
    pairs = list(zip(mine["logprobs"], theirs["logprobs"], strict=True))
    same = sum((a[0] >= a[1]) == (b[0] >= b[1]) for a, b in pairs)
    add("score_choices_that_agree", "of all", "lm-eval HFLM", same, len(pairs), same / len(pairs))
    worst = max(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))
    add("score_largest_difference", "nats", "lm-eval HFLM", worst, 0.0, None)
    tokens = (mine["new_tokens"], theirs["new_tokens"])
    speed("generate_tokens", "tokens/s", "transformers generate", tokens, "generate_s")
    speed("generate_tokens_cpu", "tokens/CPU-s", "transformers generate", tokens, "generate_cpu_s")
    alike = sum(a == b for a, b in zip(mine["texts"], theirs["texts"], strict=True))
    add("generate_texts_that_agree", "of all", "transformers generate", alike, given.prompts, alike / given.prompts)
    return rows


if __name__ == "__main__":
    main()
