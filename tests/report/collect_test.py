"""From a workdir's files to records: what jobs leave behind, without the jobs."""

import dataclasses
import sys

import pytest
from small_records import ARMS, CHOICES, TREE, answers, config, counts, scenarios, texts

from alignpre_jax.evals import HeldOut, result_lines, show, write_shown
from alignpre_jax.foundation import UserError, canonical_json, write_bytes, write_json
from alignpre_jax.report import build_report, collect, write_metrics
from alignpre_jax.study import ArmConfig, open_workspace

MODULE = sys.modules["alignpre_jax.report.collect"]  # the room exports a function of the same name
TWINS = ARMS | {"twin": ArmConfig()}  # which changes nothing, so that all its runs are the baseline's


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A finished study of a tree, two seeds and four arms, as its jobs would have left it."""
    evals = {"tax": HeldOut("web", at=("midtrain", "sft"), every_steps=4)}
    choices = dataclasses.replace(CHOICES, at=("midtrain", "sft", "flood"), every_steps=4)
    made = config(choices, evals, stages=TREE, arms=TWINS, seeds=(0, 1))
    made = dataclasses.replace(made, data=dataclasses.replace(made.data, overlap=False))
    space = open_workspace(made, tmp_path / "work", "alignpre study --config=tree.py")
    monkeypatch.setattr(MODULE, "is_done", lambda *_: True)
    monkeypatch.setattr(MODULE, "stage_ledger", lambda _, run: counts(made, run.arms[0], run.stage))
    for name, run in space.tree.items():
        folder, version = space.run_dir(name), "0.11.0" if run.seed else "0.10.2"
        write_json(folder / "made.json", {"key": "k", "recipe": {}, "versions": {"jax": version}})
        lines = [{"step": step, "seconds": float(step)} for step in (4, 8)]
        write_bytes(folder / "metrics.jsonl", "".join(canonical_json(line) + "\n" for line in lines).encode())
        rate = 0.2 if "aligned" in run.arms else 0.6
        rows = result_lines(answers(CHOICES, rate)).encode()
        losses = "".join(canonical_json(row.to_json()) + "\n" for row in texts(run.arms[0], "web")).encode()
        if run.stage != "pretrain":
            write_bytes(space.eval_dir(name, "choices") / "results.jsonl", rows)
            write_shown(space.eval_dir(name, "choices") / "shown.json", show(scenarios(), choices))
        if run.stage in ("midtrain", "sft"):
            write_bytes(space.eval_dir(name, "tax") / "results.jsonl", losses)
            write_bytes(space.in_loop_dir(name) / "4" / "tax.jsonl", losses)
        if run.stage == "sft" and (run.seed, run.arms[0]) != (1, "aligned"):
            write_bytes(space.in_loop_dir(name) / "4" / "choices.jsonl", rows)
    ledgers = {name: counts(made, run.arms[0], run.stage).to_json() for name, run in space.tree.items()}
    write_json(space.root / "data" / "ledger.json", ledgers)
    return space


def test_records_have_every_node_arm_and_seed(space):
    records = collect(space)
    assert list(records.results["choices"]) == ["midtrain", "sft", "flood"]
    assert list(records.texts["tax"]) == ["midtrain", "sft"]
    for by_arm in records.results["choices"].values():
        assert list(by_arm) == list(TWINS)
        assert all(list(by_seed) == [0, 1] for by_seed in by_arm.values())
    assert [one.id for one in records.shown["choices"].scenarios] == [one.id for one in scenarios()]
    assert set(records.ledgers["aligned"]) == set(TREE)
    assert records.reproduce == "alignpre study --config=tree.py"


def test_rows_of_a_shared_run_are_read_once(space, monkeypatch):
    read = []
    whole = MODULE._read
    monkeypatch.setattr(MODULE, "_read", lambda asked, path: read.append(path) or whole(asked, path))
    records = collect(space)
    assert len(read) == len(set(read)), "no file is read twice"
    at = records.results["choices"]["sft"]
    assert at["twin"][1] is at["unfiltered"][1]


def test_each_run_says_how_long_it_took_and_with_which_versions(space):
    records = collect(space)
    runs = {run.name: run for run in records.runs}
    assert set(runs) == set(space.tree)
    assert runs["seed0/sft"].versions == {"jax": "0.10.2"}
    assert runs["seed1/sft-aligned"].versions == {"jax": "0.11.0"}
    assert (runs["seed0/sft"].tokens, runs["seed0/sft"].seconds) == (8192, 8.0)
    assert runs["seed0/midtrain-aligned"].learnt_tokens == 48 * 128 + 16 * 64
    notices = [notice["text"] for notice in build_report(records)["notices"]]
    assert any("made with different versions: jax 0.10.2 and 0.11.0" in text for text in notices)


def test_moments_are_those_that_every_seed_has_with_the_tokens_so_far(space):
    records = collect(space)
    found = {(one.eval, one.stage, one.step): one for one in records.moments["unfiltered"]}
    assert set(found) == {("tax", "midtrain", 4), ("tax", "sft", 4), ("choices", "sft", 4)}
    assert found["tax", "midtrain", 4].tokens == 8192 + 4 * 8 * 128
    assert found["tax", "sft", 4].tokens == 2 * 8192 + 4 * 8 * 128
    aligned = {(one.eval, one.stage) for one in records.moments["aligned"]}
    assert aligned == {("tax", "midtrain"), ("tax", "sft")}, "one seed has not been asked"


def test_all_metrics_are_one_file(space):
    assert len(write_metrics(space).read_text().splitlines()) == 2 * len(space.tree)


def test_an_unfinished_study_is_refused_with_its_first_job(space, monkeypatch):
    monkeypatch.setattr(MODULE, "is_done", lambda _, job: job.kind != "eval")
    with pytest.raises(UserError, match="18 jobs are not done yet, the first: eval/seed0/midtrain"):
        collect(space)
