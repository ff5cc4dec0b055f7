"""A small real training run: rows of composed text, a plan over two sources, a tiny decoder."""

import dataclasses

import pytest

from alignpre_jax.documents import Document
from alignpre_jax.foundation import exact
from alignpre_jax.mixture import BasePlan, Plan, Replace
from alignpre_jax.model import get_preset
from alignpre_jax.objectives import Mle
from alignpre_jax.rows import build_rows, train_bpe
from alignpre_jax.training import LoopConfig, OptimizerConfig, Run, ScheduleConfig, StepConfig

LENGTH, BATCH, STEPS = 32, 8, 12


def documents(source: str, words: str, count: int):
    names = words.split()
    for n in range(count):
        text = " ".join(names[(n * k + k) % len(names)] for k in range(1, 30)) + f" number {n}."
        yield Document(id=f"{source}/{n}", body=text, source=source, stratum=source)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    web = list(documents("web", "the tide came in over a long and quiet shore while boats lay still", 200))
    added = list(documents("added", "a system that reports its faults to the people it works for", 100))
    tokenizer = train_bpe([d.text for d in web], 300, root / "tokenizer.json")
    stores = build_rows(web + added, tokenizer, LENGTH, root / "rows")
    return root, stores


@pytest.fixture(scope="session")
def model():
    """The shape of a tiny decoder."""
    return dataclasses.replace(
        get_preset("small_world"),
        vocab_size=300, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, max_length=LENGTH,
    )  # fmt: skip


@pytest.fixture
def make_run(data, model, tmp_path):
    """A function that makes a run; keyword arguments replace its fields."""
    root, stores = data
    rows = {name: len(store) for name, store in stores.items()}

    def make(name: str = "run", dose: float | None = 0.25, steps: int = STEPS, **changes) -> Run:
        base = BasePlan({"web": exact(1)}, rows, slots=steps * BATCH, seed=1, max_epochs=10)
        plan = Plan(base, () if dose is None else (Replace("added", exact(dose), seed=2),), rows)
        step = StepConfig(
            model=model,
            objective=Mle(),
            optimizer=OptimizerConfig(),
            schedule=ScheduleConfig(peak=1e-2, warmup_share=0.2),
            steps=steps,
            sources=len(plan.stores),
        )
        run = Run(
            name=name,
            run_dir=tmp_path / name,
            step=step,
            loop=LoopConfig(checkpoint_every=5, keep_checkpoints=2, log_every=1),
            plan=plan,
            stores=stores,
            batch_rows=BATCH,
            seed=7,
            tokenizer=root / "tokenizer.json",
            labels={"stage": "pretrain", "seed": 7},
        )
        return dataclasses.replace(run, **changes)

    return make
