import dataclasses
import json
import shutil

import numpy as np
import pytest

from alignpre_jax.checkpoints import load, parameters_digest
from alignpre_jax.foundation import UserError, read_json
from alignpre_jax.mixture import fingerprint, load_batches
from alignpre_jax.mixture.loader import StepSource
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.training import TIMES, loop, train


def lines(run):
    return [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]


def digest_of(run):
    return read_json(run.run_dir / "done.json")["parameters"]


def without_speed(rows):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_trains_and_says_what_it_did(make_run):
    run = make_run()
    train(run)
    rows = lines(run)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[0]["loss"] == pytest.approx(np.log(300), abs=0.3)  # an untrained model is uniform
    assert set(rows[0]["source_loss"]) <= {"web", "added"}
    source = StepSource(run.plan, run.stores, run.batch_rows)
    assert [row["batch_fingerprint"] for row in rows] == [f"{fingerprint(source[n].columns):08x}" for n in range(12)]
    model = load(run.run_dir)
    assert model.config == run.step.model
    assert model.tokenizer.digest == load_tokenizer(run.tokenizer).digest
    assert parameters_digest(model.params) == digest_of(run)


def test_source_losses_average_to_the_loss(make_run):
    run = make_run()
    train(run)
    source = StepSource(run.plan, run.stores, run.batch_rows)
    for row in lines(run):
        counts = np.bincount(source[row["step"] - 1].stores, minlength=2)
        mean = sum(row["source_loss"].get(name, 0.0) * n for name, n in zip(run.plan.stores, counts, strict=True))
        assert mean / counts.sum() == pytest.approx(row["loss"], rel=1e-5)  # all rows have as many targets


def test_the_rows_trained_on_are_counted_and_compared_with_the_ledger(make_run, monkeypatch):
    run = make_run()
    train(run)
    source = StepSource(run.plan, run.stores, run.batch_rows)
    sources = np.concatenate([source[step].stores for step in range(12)])
    wanted = dict(zip(run.plan.stores, np.bincount(sources).tolist(), strict=True))
    assert lines(run)[-1]["stratum_rows"] == read_json(run.run_dir / "done.json")["rows"] == wanted
    assert min(wanted.values()) > 0
    assert lines(run)[0]["stratum_rows"] == dict(
        zip(run.plan.stores, np.bincount(source[0].stores, minlength=2).tolist(), strict=True)
    )

    def swapped(*args, **kwargs):
        for step, batch in enumerate(load_batches(*args, **kwargs)):
            yield dataclasses.replace(batch, stores=batch.stores * 0) if step == 3 else batch

    monkeypatch.setattr(loop, "load_batches", swapped)
    other = make_run("other")
    with pytest.raises(UserError, match=r"not those of the ledger: 'web': \d+ planned, \d+ trained on"):
        train(other)
    assert not (other.run_dir / "done.json").exists()


def test_a_plan_of_another_length_is_refused(make_run):
    run = make_run()
    with pytest.raises(UserError, match="80 slots, and the plan has 96"):
        train(dataclasses.replace(run, step=dataclasses.replace(run.step, steps=10)))


def test_a_relative_folder(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parent = make_run("parent", run_dir="here/parent")
    train(parent)
    assert read_json(tmp_path / "here/parent/done.json")["steps"] == 12
    train(make_run("child", run_dir="here/child", start_from="here/parent"))
    assert (tmp_path / "here/child/done.json").exists()


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 5, 6, 10, 11])
def test_resume_is_exact(make_run, monkeypatch, after):
    whole = make_run("whole")
    train(whole)

    run = make_run("broken")
    real = loop._on_device
    seen = 0

    def dies(*args):
        nonlocal seen
        seen += 1
        if seen > after:
            raise Killed
        return real(*args)

    monkeypatch.setattr(loop, "_on_device", dies)
    with pytest.raises(Killed):
        train(run)
    assert not (run.run_dir / "done.json").exists()
    monkeypatch.setattr(loop, "_on_device", real)
    train(run)
    assert digest_of(run) == digest_of(whole)
    assert without_speed(lines(run)) == without_speed(lines(whole))


def test_a_damaged_checkpoint_is_passed_over(make_run, caplog):
    whole, run = make_run("whole"), make_run("damaged")
    train(whole)
    train(run)
    (run.run_dir / "done.json").unlink()
    newest = run.run_dir / "checkpoints" / "12"
    for file in [*newest.glob("params/d/*"), *newest.glob("params/**/*.ocdbt")]:
        file.write_bytes(file.read_bytes()[:10])
    train(run)
    assert "is damaged" in caplog.text
    assert digest_of(run) == digest_of(whole)


def test_a_dose_of_zero_changes_no_bit(make_run):
    plain, zero, dosed = make_run("plain", dose=None), make_run("zero", dose=0.0), make_run("dosed", dose=0.25)
    for run in (plain, zero, dosed):
        train(run)
    assert digest_of(plain) == digest_of(zero) != digest_of(dosed)


def test_a_stage_starts_from_its_parent(make_run):
    parent = make_run("parent")
    train(parent)
    child = make_run("child", start_from=str(parent.run_dir))
    train(child)
    assert lines(child)[0]["loss"] < lines(parent)[0]["loss"] - 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": 299}, "vocab_size"),
        ({"width": 64}, "another architecture"),
    ],
)
def test_models_that_do_not_fit(make_run, change, says):
    parent = make_run("parent", steps=1)
    train(parent)
    run = make_run("child", start_from=str(parent.run_dir))
    model = dataclasses.replace(run.step.model, **change)
    with pytest.raises(UserError, match=says):
        train(dataclasses.replace(run, step=dataclasses.replace(run.step, model=model)))


def test_rows_of_another_tokenizer(make_run, tmp_path):
    from alignpre_jax.rows import train_bpe

    train_bpe(["other words altogether"] * 3, 290, tmp_path / "other.json")
    with pytest.raises(UserError, match="another tokenizer"):
        train(make_run(tokenizer=tmp_path / "other.json"))


def test_parameters_that_are_not_finite_stop_the_run(make_run):
    run = make_run()
    schedule = dataclasses.replace(run.step.schedule, peak=1e30)
    step = dataclasses.replace(run.step, schedule=schedule)
    with pytest.raises(UserError, match=r"5 steps in a row were skipped .*gradient norm nan"):
        train(dataclasses.replace(run, step=step))


def test_a_full_folder_says_so(make_run, monkeypatch):
    import errno

    run = make_run()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop.MetricsLog, "write", lambda *_: full())
    from alignpre_jax.foundation import disk_errors

    with pytest.raises(UserError, match="no space left"), disk_errors(run.run_dir):
        train(run)
    shutil.rmtree(run.run_dir)
