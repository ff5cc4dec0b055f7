"""The training loop: one stage, from its start point to its last checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from alignpre_jax.foundation import (
    Event,
    Interrupted,
    PathLike,
    Report,
    UserError,
    digest,
    silent,
    to_mapping,
    write_bytes,
    write_json,
)
from alignpre_jax.mixture import Batch, Plan, load_batches
from alignpre_jax.rows import RowStore, load_tokenizer
from alignpre_jax.training.checkpoints import TOKENIZER, Checkpoints, describe, load_params
from alignpre_jax.training.config import TrainingConfig
from alignpre_jax.training.mesh import check_batch, parse_mesh
from alignpre_jax.training.metrics import MetricsLog
from alignpre_jax.training.step import State, StepConfig, TrainStep, make_train_step

DONE = "done.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """One stage of one arm and seed, ready to train.

    Attributes:
      name: shown in progress and logs.
      run_dir: the run's folder; gets checkpoints, metrics.jsonl, tokenizer.json, done.json.
      step: everything that the compiled step depends on.
      loop: mesh, checkpoint and log intervals.
      plan: slot -> row for the stage.
      stores: the row stores that the plan names.
      batch_rows: rows in the global batch.
      seed: of the initial parameters, where the run does not start from another.
      tokenizer: path of the tokenizer that the rows were made with; copied beside the checkpoints.
      start_from: folder of the run whose last checkpoint this one starts from; empty for a fresh model.
        The optimizer starts anew in every stage.
      labels: facts written into every metrics line (stage, arms, seed).
    """

    name: str
    run_dir: PathLike
    step: StepConfig
    loop: TrainingConfig
    plan: Plan
    stores: Mapping[str, RowStore]
    batch_rows: int
    seed: int
    tokenizer: PathLike
    start_from: str = ""
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def is_done(run_dir: PathLike) -> bool:
    """Whether the run in this folder has finished."""
    return (epath.Path(run_dir) / DONE).exists()


def train(run: Run, report: Report = silent) -> None:
    """Trains to the end, going on from the newest checkpoint in `run.run_dir` if there is one.

    Raises:
      UserError: the rows, the model, the batch and the mesh do not fit together, or the loss is not finite.
      Interrupted: SIGTERM came; everything is saved.
    """
    # --- What does not change over the run.
    _check_rows(run)
    mesh = parse_mesh(run.loop.mesh)
    check_batch(mesh, run.batch_rows)
    step_fn = make_train_step(run.step, mesh)
    row_length = next(iter(run.stores.values())).header.length
    tokens_per_step = run.batch_rows * row_length
    run_dir = epath.Path(run.run_dir)
    write_bytes(run_dir / TOKENIZER, epath.Path(run.tokenizer).read_bytes())

    with Checkpoints(run_dir, keep=run.loop.keep_checkpoints, meta=_meta(run)) as checkpoints, jax.set_mesh(mesh):
        # --- Where it starts: its own checkpoint, its parent's, or fresh parameters.
        report(Event(run.name, 0, run.step.steps))
        state = _first_state(run, mesh, step_fn, checkpoints)
        start = int(state.step)
        metrics_log = MetricsLog(run_dir, done=start)
        batches = load_batches(
            run.plan,
            run.stores,
            run.batch_rows,
            start_step=start,
            stop_step=run.step.steps,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        clock = _Clock(start, tokens_per_step, before=metrics_log.seconds)

        def settle(step: int, values: Mapping[str, jax.Array]) -> None:
            if step % run.loop.log_every == 0 or step in (1, run.step.steps):
                line = _line(run, step, jax.device_get(values)) | clock.tick(step)
                metrics_log.write(line)
                figures = {name: line[name] for name in ("loss", "tokens_per_second")}
                report(Event(run.name, step, run.step.steps, figures))

        # --- The loop. Step N is dispatched before the metrics of step N-1 are read.
        pending: tuple[int, Mapping[str, jax.Array]] | None = None
        with _StopSignal() as stop, contextlib.closing(batches), jax.transfer_guard("disallow"):
            for step, batch in enumerate(batches, start + 1):
                state, values = step_fn.run(state, _on_device(batch, step_fn, run.batch_rows))
                if pending is not None:
                    settle(*pending)
                pending = step, values
                last = step == run.step.steps
                if last or stop.asked or step % run.loop.checkpoint_every == 0:
                    settle(*pending)
                    pending = None
                    with clock.paused():
                        checkpoints.save(step, state.params, state.optimizer)
                if stop.asked and not last:
                    raise Interrupted(f"{run.name}: stopped at step {step} of {run.step.steps}; everything is saved")

    # --- Finished: the last checkpoint is on disk before the marker is.
    if jax.process_index() == 0:
        facts = {"steps": run.step.steps, "tokens": run.step.steps * tokens_per_step, "plan": run.plan.digest()}
        write_json(run_dir / DONE, facts | {"parameters": parameters_digest(state.params)})


def parameters_digest(params: Any) -> str:
    """SHA-256 over the names, shapes, dtypes and bytes of all parameters; equal digests mean equal models."""
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
        return ""  # spread over several hosts; no host can see all of it
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(jax.device_get(leaf))
        sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def _check_rows(run: Run) -> None:
    tokenizer = load_tokenizer(run.tokenizer)
    for name, store in run.stores.items():
        if store.header.tokenizer_digest != tokenizer.digest:
            raise UserError(
                f"the rows of {name!r} were made with another tokenizer",
                where=f"{run.tokenizer}",
                fix="delete WORKDIR/data and run `alignpre prepare` again",
            )
    if tokenizer.vocab_size > run.step.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} entries, the model {run.step.model.vocab_size}",
            where="model.vocab_size",
            fix=f"set it to at least {tokenizer.vocab_size}",
        )


def _meta(run: Run) -> dict[str, Any]:
    return describe(
        run.step.model,
        run=run.name,
        labels=dict(run.labels),
        plan=run.plan.digest(),
        step_config=digest(to_mapping(run.step)),
    )


def _first_state(run: Run, mesh: Mesh, step_fn: TrainStep, checkpoints: Checkpoints) -> State:
    abstract = step_fn.abstract()
    restored = checkpoints.restore_latest(abstract.params, abstract.optimizer)
    if restored is not None:
        step = jax.device_put(np.int32(restored.step), step_fn.shardings.step)
        return State(restored.params, restored.optimizer, step)
    if run.start_from:
        params, config, _ = load_params(run.start_from, mesh=mesh)
        if config != run.step.model:
            raise UserError(
                f"{run.start_from} holds another architecture",
                where="model",
                fix="give the study a new --workdir, or the model settings it was trained with",
            )
        return step_fn.init(params)
    return step_fn.init(step_fn.fresh_params(run.seed))


def _on_device(batch: Batch, step_fn: TrainStep, batch_rows: int) -> Batch:
    def put(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(step_fn.batch, array, (batch_rows, *array.shape[1:]))

    return jax.tree.map(put, batch)


def _line(run: Run, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
    loss = float(values["loss"])
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step} of {run.name}",
            where="stages.STAGE.schedule.peak",
            fix="lower the learning rate, lengthen the warmup, or clip harder (optimizer.clip_norm)",
        )
    sources = {
        name: float(total / count)
        for name, total, count in zip(run.plan.stores, values["source_loss"], values["source_tokens"], strict=True)
        if count > 0
    }
    return {
        "step": step,
        "loss": loss,
        "batch_fingerprint": f"{int(values['batch_fingerprint']):08x}",
        "source_loss": sources,
        **{name: float(values[name]) for name in ("learning_rate", "gradient_norm", "update_norm")},
        **run.labels,
    }


class _Clock:
    """Seconds of the run, and tokens per second since the last logged step, writing checkpoints left out.

    Args:
      step: that the run goes on from; the first rate contains the compilation.
      tokens_per_step: in the global batch.
      before: seconds that earlier processes spent on this run.
    """

    def __init__(self, step: int, tokens_per_step: int, before: float):
        self._step, self._tokens_per_step = step, tokens_per_step
        self._since = time.perf_counter()
        self._zero = self._since - before

    def tick(self, step: int) -> dict[str, float]:
        """The figures at a logged step."""
        now = time.perf_counter()
        rate = (step - self._step) * self._tokens_per_step / (now - self._since)
        self._step, self._since = step, now
        return {"tokens_per_second": round(rate, 1), "seconds": round(now - self._zero, 3)}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count into the rate."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


class _StopSignal:
    """Turns SIGTERM into a flag that the loop looks at after every step (main thread only)."""

    asked = False

    def __enter__(self) -> _StopSignal:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        logging.warning("SIGTERM: saving a checkpoint after this step")
        self.asked = True
