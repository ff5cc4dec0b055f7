"""Bad steps, rollbacks, damaged checkpoints, signals: what a run survives, and that it ends with the right bytes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignpre_jax.checkpoints import load, parameters_digest
from alignpre_jax.foundation import Interrupted, UserError, read_json, read_jsonl
from alignpre_jax.mixture import Batch, load_batches
from alignpre_jax.mixture.loader import StepSource
from alignpre_jax.model import parse_mesh
from alignpre_jax.objectives import Mle
from alignpre_jax.training import (
    STALLED,
    TIMES,
    Fixed,
    GuardConfig,
    OptimizerConfig,
    loop,
    make_train_step,
    skipped_slots,
    train,
)
from alignpre_jax.training.checks import check_tokens
from alignpre_jax.training.faults import memory_errors

MARK = 100


def digest_of(run):
    return read_json(run.run_dir / "done.json")["parameters"]


def events_of(run, kind):
    return [line for line in read_jsonl(run.run_dir / "events.jsonl") if line["event"] == kind]


def lines_of(run):
    rows = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


class Trap(Mle):
    """The usual loss, or NaN where the batch is marked (see `marked`)."""

    def terms(self, models, batch):
        terms, aux = super().terms(models, batch)
        coefficient, value = terms["nll"]
        return {"nll": (coefficient, jnp.where(batch.segments[0, 0] >= MARK, jnp.nan, 1.0) * value)}, aux


def marked(batch, is_bad):
    """The batch, with segment numbers that no row has if it is to be bad."""
    marked = {**batch.columns, "segments": batch.segments + np.int32(MARK)}
    return dataclasses.replace(batch, columns=marked) if is_bad else batch


@pytest.fixture
def make_trapped(make_run, monkeypatch):
    """A function that makes a run whose loss is NaN at the given steps. One is trained before the next is made."""

    def make(name, bad_steps, guard):
        def load(*args, start_step, **kwargs):
            for step, batch in enumerate(load_batches(*args, start_step=start_step, **kwargs), start_step + 1):
                yield marked(batch, step in bad_steps)

        monkeypatch.setattr(loop, "load_batches", load)
        run = make_run(name)
        optimizer = dataclasses.replace(run.step.optimizer, guard=guard)
        step = dataclasses.replace(run.step, objective=Trap(), optimizer=optimizer)
        return dataclasses.replace(run, step=step)

    return make


def by_hand(run, order):
    """Parameters after the given steps, and no others, each with the learning rate of its own number."""
    mesh = parse_mesh(run.loop.mesh)
    source = StepSource(run.plan, run.stores, run.batch_rows)
    with jax.set_mesh(mesh):
        step_fn = make_train_step(run.step, mesh)
        state = step_fn.init(step_fn.fresh_params(run.seed))
        for step in order:
            state = state._replace(step=jax.device_put(np.int32(step - 1), step_fn.shardings.step))
            state, _ = step_fn.run(state, Fixed(), jax.device_put(source[step - 1], step_fn.batch))
    return parameters_digest(state.trained)


def train_and_die(run, monkeypatch, after, how):
    """Trains until `after` batches were taken, then raises or signals; then goes on to the end."""
    real, seen = loop._on_device, 0

    def counted(*args):
        nonlocal seen
        seen += 1
        if seen == after + 1:
            how()
        return real(*args)

    monkeypatch.setattr(loop, "_on_device", counted)
    with pytest.raises((RuntimeError, Interrupted)):
        train(run)
    monkeypatch.setattr(loop, "_on_device", real)
    train(run)


def die():
    raise RuntimeError("killed")


def test_a_bad_step_is_skipped_and_remembered(make_trapped, monkeypatch):
    guard = GuardConfig(patience=3)
    run = make_trapped("skips", (4, 7), guard)
    train(run)
    assert digest_of(run) == by_hand(run, [n for n in range(1, 13) if n not in (4, 7)])
    assert [line["step"] for line in events_of(run, "skipped step")] == [4, 7]
    assert skipped_slots(run.run_dir) == [(24, 32), (48, 56)]
    done = read_json(run.run_dir / "done.json")
    assert done["tokens"] == 10 * 8 * 32
    assert sum(done["rows"].values()) == 12 * 8  # gone through; the skipped ones are listed beside
    assert [line["loss"] is None for line in lines_of(run)] == [n in (4, 7) for n in range(1, 13)]
    for after in (4, 6, 8):
        again = make_trapped(f"dies{after}", (4, 7), guard)
        train_and_die(again, monkeypatch, after, die)
        assert read_json(again.run_dir / "done.json") == done
        assert lines_of(again) == lines_of(run)


def test_a_rollback_steps_over_the_rows_since_the_checkpoint(make_trapped, monkeypatch):
    guard = GuardConfig(action="rollback", patience=2)
    run = make_trapped("rolls", (7, 8), guard)  # checkpoints are at 5 and 10
    train(run)
    assert digest_of(run) == by_hand(run, [1, 2, 3, 4, 5, 9, 10, 11, 12])
    assert [(line["step"], line["to"]) for line in events_of(run, "rollback")] == [(8, 5)]
    assert skipped_slots(run.run_dir) == [(40, 64)]
    for after in (7, 8, 9, 10):
        again = make_trapped(f"dies{after}", (7, 8), guard)
        train_and_die(again, monkeypatch, after, die)
        assert digest_of(again) == digest_of(run)
        assert skipped_slots(again.run_dir) == [(40, 64)]


def test_a_rollback_before_the_first_checkpoint_goes_to_the_start(make_trapped):
    run = make_trapped("early", (2, 3), GuardConfig(action="rollback", patience=2))
    train(run)
    assert digest_of(run) == by_hand(run, range(4, 13))


def test_budgets(make_trapped):
    with pytest.raises(UserError, match=r"more than stages\.STAGE\.optimizer\.guard\.budget"):
        train(make_trapped("skips", (2, 4, 6), GuardConfig(budget=2)))
    with pytest.raises(UserError, match="1 rollbacks were not enough"):
        train(make_trapped("rolls", (4, 7), GuardConfig(action="rollback", patience=1, rollbacks=1)))
    with pytest.raises(UserError, match="the loss is nan at step 2"):
        train(make_trapped("stops", (2,), GuardConfig(action="stop")))


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def biggest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES = {
    "truncated": lambda folder: os.truncate(biggest(folder / "params"), 100),
    "missing file": lambda folder: biggest(folder / "optimizer").unlink(),
    "flipped byte of the parameters": lambda folder: flip(biggest(folder / "params")),
    "flipped byte of the optimizer": lambda folder: flip(biggest(folder / "optimizer")),
    "changed meta": lambda folder: (folder / "meta/metadata").write_text(
        (folder / "meta/metadata").read_text().replace('"step": 12', '"step": 11')
    ),
    "missing item": lambda folder: [path.unlink() for path in (folder / "meta").iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_loudly(make_run, damage):
    run, notes = make_run("damaged"), []
    train(run)
    whole = digest_of(run)
    (run.run_dir / "done.json").unlink()
    DAMAGES[damage](run.run_dir / "checkpoints" / "12")
    if "parameters" in damage:
        with pytest.raises(UserError, match="cannot be read"):
            load(run.run_dir)
    train(run, lambda event: notes.append(event.note))
    assert digest_of(run) == whole
    assert [line["step"] for line in events_of(run, "damaged checkpoint")] == [12]
    assert any("is damaged" in note for note in notes)
    assert [path.name for path in (run.run_dir / "damaged").iterdir()] == ["12-0"]


def test_a_checkpoint_of_other_settings_is_refused_not_set_aside(make_run):
    run = make_run("run")
    train(run)
    (run.run_dir / "done.json").unlink()
    other = dataclasses.replace(run, step=dataclasses.replace(run.step, optimizer=OptimizerConfig(name="sgd")))
    with pytest.raises(UserError, match=r"optimizer.name: adamw -> sgd"):
        train(other)
    with pytest.raises(UserError, match=r"made otherwise:\n    plan: "):
        train(dataclasses.replace(make_run("run", dose=None), run_dir=run.run_dir))
    assert not (run.run_dir / "damaged").exists()


def test_sigterm_saves_and_the_run_goes_on_to_the_same_bytes(make_run, monkeypatch):
    whole, run = make_run("whole"), make_run("signalled")
    train(whole)
    train_and_die(run, monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert [line["step"] for line in events_of(run, "interrupted")] == [7]
    assert [line["step"] for line in events_of(run, "start")] == [0, 7]
    assert digest_of(run) == digest_of(whole)


def test_checkpoints_by_time_and_those_kept_for_good(make_run):
    run = make_run("run")
    often = dataclasses.replace(
        run.loop, checkpoint_every=1000, checkpoint_minutes=1e-9, keep_checkpoints=1, keep_every=5
    )
    train(dataclasses.replace(run, loop=often))
    assert sorted(int(path.name) for path in (run.run_dir / "checkpoints").iterdir()) == [5, 10, 12]


def test_the_moving_average_can_be_loaded(make_run):
    run = make_run("run", steps=4)
    optimizer = dataclasses.replace(run.step.optimizer, ema_decay=0.5)
    run = dataclasses.replace(run, step=dataclasses.replace(run.step, optimizer=optimizer))
    train(run)
    mean = load(run.run_dir, weights="ema").params
    last = load(run.run_dir).params
    assert digest_of(run) == parameters_digest(last) != parameters_digest(mean)
    plain = make_run("plain", steps=1)
    train(plain)
    with pytest.raises(UserError, match="has no ema"):
        load(plain.run_dir, weights="ema")


def test_out_of_memory_names_the_keys():
    with pytest.raises(UserError, match=r"out of memory.*\n.*optimizer.accumulate"), memory_errors():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError), memory_errors():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_an_id_beyond_the_vocabulary_is_named(make_run):
    run = make_run()
    batch = StepSource(run.plan, run.stores, run.batch_rows)[0]
    check_tokens(run, 1, batch)
    tokens = batch.tokens.copy()
    tokens[3, 2] = 300
    with pytest.raises(UserError, match=r"token id 300, .*below 300"):
        check_tokens(run, 1, Batch({"tokens": tokens, "segments": batch.segments}, batch.stores))


def test_the_watchdog_shows_the_stacks_and_ends_the_process(tmp_path):
    program = (
        "import sys, time; from alignpre_jax.training.watchdog import Watchdog\n"
        "def stuck(): time.sleep(60)\n"
        "with Watchdog(sys.argv[1]) as dog:\n"
        "    dog.allow('start', 0); dog.allow('step', 30); dog.allow('step', 0.2); stuck()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == STALLED
    for text in (done.stderr, (tmp_path / "stacks-0.txt").read_text()):
        assert "the phase 'step' took longer" in text
        assert "in stuck" in text
