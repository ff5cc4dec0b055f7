"""The model card of an arm at a node of the tree."""

import dataclasses
import types

import pytest
from small_records import ARMS, CHOICES, TREE, config, counts, records

from alignpre_jax.foundation import write_json
from alignpre_jax.report import build_report, card
from alignpre_jax.report.card import model_card
from alignpre_jax.study import open_workspace


@pytest.fixture
def space(tmp_path, monkeypatch):
    made = config(dataclasses.replace(CHOICES, at=tuple(TREE)), stages=TREE, arms=ARMS)
    space = open_workspace(made, tmp_path / "work", "alignpre study --config=tree.py")
    tokenizer = types.SimpleNamespace(eot_id=0, decode=lambda ids: "<|endoftext|>")
    monkeypatch.setattr(card, "load_tokenizer", lambda _: tokenizer)
    monkeypatch.setattr(card, "stage_ledger", lambda _, run: counts(made, run.arms[0], run.stage))
    for name in space.tree:
        write_json(space.run_dir(name) / "made.json", {"key": "k", "recipe": {}, "versions": {"alignpre_jax": "9.9"}})
    return space


def test_the_card_tells_the_stages_on_the_way_and_what_was_changed(space):
    text = model_card(space, "aligned", 1, "flood")
    assert "arm aligned after flood, seed 1" in text
    assert [line.split("**")[1] for line in text.splitlines() if line.startswith("**")] == [
        "pretrain",
        "midtrain",
        "flood",
    ]
    assert "8,192 tokens; the arm replaces 25% of the tokens with aligned." in text
    assert "Replace: 2,048 tokens from `aligned`" in text
    assert "Not evaluated here." in text
    assert "alignpre_jax 9.9" in text
    assert "after sft, seed 0" in model_card(space, "aligned", 0)


def test_the_card_has_the_rates_of_its_node_and_what_is_left(space):
    rates = {("aligned", "pretrain"): 0.6, ("aligned", "sft"): 0.4}
    write_json(space.root / "report.json", build_report(records(rates, config=space.config)))
    text = model_card(space, "aligned", 0, "sft")
    assert "| held_out | 40.0% |" in text
    assert "held_out -20.0 points" in text
    assert "50% of that after midtrain" in text
    assert "no share (its difference at midtrain is not clear" in model_card(space, "zero", 0, "sft")
    assert "is left" not in model_card(space, "aligned", 0, "midtrain")
