"""A run looks at what it goes on from: other text, another rate or another start are refused, naming what differs."""

import dataclasses
import shutil

import pytest

from alignpre_jax.foundation import UserError, read_json
from alignpre_jax.rows import build_rows, load_tokenizer
from alignpre_jax.rows.template import Template
from alignpre_jax.training import loop, train
from tests.training.conftest import LENGTH, documents


class Killed(Exception):
    pass


@pytest.fixture
def killed(make_run, monkeypatch):
    """A function that trains a run past its first checkpoint, and kills it."""

    def kill(run):
        real, seen = loop._on_device, []

        def dies(*args):
            seen.append(args)
            if len(seen) > 6:
                raise Killed
            return real(*args)

        monkeypatch.setattr(loop, "_on_device", dies)
        with pytest.raises(Killed):
            train(run)
        monkeypatch.setattr(loop, "_on_device", real)
        return run

    return kill


def changed(run, **parts):
    """The run with fields of the objects that its step holds replaced: optimizer={"name": "sgd"}."""
    step = run.step
    for name, fields in parts.items():
        step = dataclasses.replace(step, **{name: dataclasses.replace(getattr(step, name), **fields)})
    return dataclasses.replace(run, step=step)


def test_what_is_learnt_may_not_change(killed, make_run):
    run = killed(make_run())
    for other, says in (
        (changed(run, schedule={"peak": 0.5}), "schedule.peak: 0.01 -> 0.5"),
        (changed(run, optimizer={"weight_decay": 0.0}), "optimizer.weight_decay: 0.1 -> 0.0"),
        (changed(run, optimizer={"ema_decay": 0.5}), "optimizer.ema_decay: 0.0 -> 0.5"),
        (changed(run, objective={"z_loss": 0.1}), "objective.z_loss: 0.0 -> 0.1"),
        (dataclasses.replace(run, seed=8), "start.seed: 7 -> 8"),
        (dataclasses.replace(run, template=Template("{{ messages }}")), "template:  -> "),
        (dataclasses.replace(run, plan=make_run(dose=0.5).plan), "plan: "),
    ):
        with pytest.raises(UserError) as refused:
            train(other)
        assert "made otherwise" in str(refused.value)
        assert says in str(refused.value)
    assert not (run.run_dir / "damaged").exists()


def test_rows_of_other_text_are_refused_though_there_are_as_many(killed, make_run, data, tmp_path):
    root, stores = data
    run = killed(make_run())
    tokenizer = load_tokenizer(root / "tokenizer.json")
    text = list(documents("web", "the tide came in over a long and quiet shore while boats lay still", 200))
    text[0] = dataclasses.replace(text[0], body=text[0].body.replace("number 0", "number 1"))
    other = build_rows(text, tokenizer, LENGTH, tmp_path / "rows")
    assert len(other["web"]) == len(stores["web"])
    before, after = (each["web"].header.inputs_digest for each in (stores, other))
    with pytest.raises(UserError, match=f"rows.web: {before} -> {after}"):
        train(dataclasses.replace(run, stores={**stores, **other}))


def test_what_changes_nothing_that_is_learnt_may_change(killed, make_run):
    whole = make_run("whole")
    train(whole)
    run = killed(make_run("run"))
    free = changed(
        run,
        model={"remat": "full", "layout": "unroll"},
        optimizer={"guard": dataclasses.replace(run.step.optimizer.guard, budget=7, rollbacks=9)},
    )
    often = dataclasses.replace(run.loop, checkpoint_every=3, log_every=2, mesh="data:1")
    train(dataclasses.replace(free, loop=often))
    assert read_json(run.run_dir / "done.json")["rows"] == read_json(whole.run_dir / "done.json")["rows"]
    other = killed(make_run("other"))
    train(changed(other, optimizer={"accumulate": 2}))


def test_a_parent_with_other_parameters_is_refused_and_one_that_is_gone_is_remembered(killed, make_run):
    parent, other = make_run("parent", steps=1), dataclasses.replace(make_run("other", steps=1), seed=8)
    train(parent)
    train(other)
    run = killed(make_run("run", start_from=str(parent.run_dir)))
    with pytest.raises(UserError, match=r"start.parameters: \w+ -> \w+"):
        train(dataclasses.replace(run, start_from=str(other.run_dir)))
    moved = parent.run_dir.rename(parent.run_dir.parent / "moved")
    with pytest.raises(UserError, match=r"no checkpoint in .*parent"):
        train(make_run("child", start_from=str(parent.run_dir)))
    train(run)
    behind = read_json(run.run_dir / "model.json")["behind"]
    assert [(each["run"], each["step"]) for each in behind] == [("parent", 1)]
    shutil.rmtree(moved)
