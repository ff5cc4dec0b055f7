"""Times the training loop over rows on disk: tokens per second without compilation, and the share of waiting."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from alignpre_jax.documents import Document
from alignpre_jax.foundation import exact
from alignpre_jax.mixture import BasePlan, Plan
from alignpre_jax.model import get_preset
from alignpre_jax.objectives import Mle
from alignpre_jax.rows import build_rows, train_bpe
from alignpre_jax.training import LoopConfig, OptimizerConfig, Run, ScheduleConfig, StepConfig, train

STEPS, EVERY = 80, 20


def main() -> None:
    """Trains a short run in `--folder` and prints what its metrics say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--rows", type=int, required=True)
    given = parser.parse_args()
    model = get_preset(given.preset)
    words = [
        "the",
        "tide",
        "came",
        "in",
        "over",
        "a",
        "long",
        "and",
        "quiet",
        "shore",
        "while",
        "boats",
        "lay",
        "still",
    ]
    texts = [" ".join(f"{words[(n * k + k) % 14]}{(n + k) % 97}" for k in range(1, 400)) for n in range(400)]
    documents = (Document(id=f"text/{n}", body=text, source="text", stratum="text") for n, text in enumerate(texts))
    tokenizer = train_bpe(texts, min(model.vocab_size, 2048), given.folder / "tokenizer.json")
    stores = build_rows(documents, tokenizer, model.max_length, given.folder / "rows")
    rows = {name: len(store) for name, store in stores.items()}
    train(
        Run(
            name="bench",
            run_dir=given.folder / "run",
            step=StepConfig(model, Mle(), OptimizerConfig(), ScheduleConfig(), steps=STEPS, sources=1),
            loop=LoopConfig(checkpoint_every=STEPS, log_every=EVERY),
            plan=Plan(BasePlan({"text": exact(1)}, rows, STEPS * given.rows, seed=1, max_epochs=100), (), rows),
            stores=stores,
            batch_rows=given.rows,
            seed=0,
            tokenizer=given.folder / "tokenizer.json",
        )
    )
    lines = [json.loads(line) for line in (given.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    steady = [line for line in lines if line["step"] > EVERY]  # before that: compilation
    found = {
        "loop_speed": statistics.median(line["tokens_per_second"] for line in steady),
        "input_wait": statistics.median(line["input_wait"] for line in steady),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
