"""The training loop runs one stage, from its start point to its last checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from alignpre_jax.checkpoints import Checkpoints, Restored, State, load, parameters_digest
from alignpre_jax.checkpoints.folder import DONE
from alignpre_jax.foundation import (
    Event,
    Interrupted,
    PathLike,
    Report,
    UserError,
    peak_flops,
    silent,
    to_mapping,
    write_json,
)
from alignpre_jax.mixture import Batch, Counted, load_batches, render
from alignpre_jax.mixture import check as check_ledger
from alignpre_jax.mixture import ledger as ledger_of
from alignpre_jax.model import Full, Lora, choose_kernel
from alignpre_jax.model.mesh import host_part, parse_mesh
from alignpre_jax.rows import load_tokenizer
from alignpre_jax.training.checks import check_run, check_tokens
from alignpre_jax.training.clock import Clock
from alignpre_jax.training.distributed import Agreement, others_may_vanish, put_part
from alignpre_jax.training.faults import EventLog, Skips, StopSignal, bad_step, memory_errors
from alignpre_jax.training.identity import check_adapters_off, check_margins
from alignpre_jax.training.in_loop import PENDING, pending_steps
from alignpre_jax.training.metrics import MetricsLog, memory_in_use, metrics_line
from alignpre_jax.training.profile import Profiler
from alignpre_jax.training.resume import Origin, facts_of, is_own_reference, read_origin, write_model
from alignpre_jax.training.run import Run
from alignpre_jax.training.step import Fixed, TrainStep, make_train_step
from alignpre_jax.training.traces import Tracer
from alignpre_jax.training.trackers import Tracker, figures_of, open_tracker
from alignpre_jax.training.watchdog import Watchdog

Pending = tuple[int, Mapping[str, jax.Array]]  # a step that was dispatched, and what it will return


def is_done(run_dir: PathLike) -> bool:
    """Returns whether the run in this folder has finished."""
    return (epath.Path(run_dir) / DONE).exists()


def train(run: Run, report: Report = silent, wrap: Callable[[TrainStep], TrainStep] = lambda step: step) -> None:
    """Trains to the end, going on from the newest checkpoint in `run.run_dir` if there is one.

    With several processes (see `distributed.initialize`) all of them call this, and the first one writes. `wrap` may
    replace the compiled step; see `seeds.train_seeds`.

    Raises:
      UserError: the rows, the model, the batch and the mesh do not fit together, memory or disk is full, or more
        steps are bad than `optimizer.guard` allows.
      Interrupted: SIGTERM or a preemption notice came; everything is saved.
    """
    with others_may_vanish(), memory_errors(), Watchdog(run.run_dir, jax.process_index()) as watchdog:
        watchdog.allow("start", 60 * run.loop.start_minutes)
        _train(run, report, watchdog, wrap)


def _train(run: Run, report: Report, watchdog: Watchdog, wrap: Callable[[TrainStep], TrainStep]) -> None:
    # --- What does not change over the run.
    loop, guard, steps = run.loop, run.step.optimizer.guard, run.step.steps
    row_length = next(iter(run.stores.values())).header.length
    mesh = parse_mesh(loop.mesh, dcn=loop.dcn_mesh)
    check_run(run, mesh)
    is_first_process = jax.process_index() == 0
    step_fn = wrap(make_train_step(dataclasses.replace(run.step, token_losses=bool(loop.trace_documents)), mesh))
    run_dir = epath.Path(run.run_dir)
    origin = read_origin(run)
    facts = facts_of(run, origin)
    events = EventLog(run_dir, run.name, report)
    ledger = ledger_of(run.plan, row_length)
    logging.info("%s: to be trained on\n%s", run.name, render(ledger))
    agreement = Agreement(mesh)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(run_dir, keep=loop.keep_checkpoints, keep_every=loop.keep_every, meta=facts)
        )
        # This context is left before that of the checkpoints, which would wait for a process that has vanished.
        stack.enter_context(others_may_vanish())
        stack.enter_context(jax.set_mesh(mesh))

        # --- Where the run starts: its own checkpoint, its parent's, or fresh parameters.
        report(Event(run.name, 0, steps))
        state, fixed, meta = _first_state(run, origin, mesh, step_fn, checkpoints, events)
        if is_first_process:
            write_model(run, origin, facts)
        step = start = int(state.step)
        skips = Skips(meta.get("skipped", ()))
        counted = Counted.from_json(run.plan, meta.get("rows", {}))
        kernel = choose_kernel(run.step.model, row_length)
        logging.info("%s: mesh %s, attention by %s", run.name, dict(mesh.shape), kernel)
        events("start", start, processes=jax.process_count(), devices=mesh.size, attention=kernel)
        metrics_log = MetricsLog(run_dir, done=start)
        clock = _clock(run, mesh, start, metrics_log.seconds, meta.get("productive_seconds", 0.0), events.first_start())
        trackers = _open_trackers(run, start, stack) if is_first_process else []
        tracer = (
            Tracer(run_dir, run.plan, loop.trace_documents, run.batch_rows, start) if loop.trace_documents else None
        )
        profiler = Profiler(run_dir, loop.profiled())
        stack.callback(profiler.close)

        def settle(step: int, values: Mapping[str, jax.Array]) -> int:
            """Reads what a step returned; returns how many bad steps in a row it makes."""
            nonlocal counted
            rows, streak = jax.device_get((values["source_rows"], values.get("bad_streak", 0)))
            counted, streak = Counted(counted.stores, counted.rows + rows), int(streak)
            if streak:
                skips.bad(step)
                found = jax.device_get({name: values[name] for name in ("loss", "gradient_norm")})
                events("skipped step", step, bad_step(step, found), streak=streak)
            if step % loop.log_every == 0 or step in (1, steps):
                found = jax.device_get({name: value for name, value in values.items() if value.ndim < 2})
                line = metrics_line(step, found, counted.to_json()) | dict(run.labels)
                line |= clock.tick(step) | memory_in_use()
                if is_first_process:
                    metrics_log.write(line)
                    for tracker in trackers:
                        tracker.write(step, figures_of(line))
                shown = {name: line[name] for name in ("loss", "tokens_per_second") if line[name] is not None}
                report(Event(run.name, step, steps, shown))
                if guard.action == "stop" and line["loss"] is None:
                    raise _hopeless(run, step, f"the loss is {float(found['loss'])}")
            if skips.count("bad") > guard.budget:
                raise _hopeless(
                    run, step, f"{skips.count('bad')} steps were skipped, more than stages.STAGE.optimizer.guard.budget"
                )
            if streak >= guard.patience and guard.action == "skip":
                raise _hopeless(run, step, f"{streak} steps in a row were skipped ({bad_step(step, found)})")
            return streak

        def save(step: int, state: State, due: tuple[int, ...] = ()) -> None:
            with clock.paused():
                facts = {"skipped": skips.to_json(), "rows": counted.to_json()} | ({PENDING: due} if due else {})
                checkpoints.save(state, facts | {"productive_seconds": round(clock.productive, 3)})
                if tracer is not None:
                    tracer.write(step)

        def evaluate(step: int, state: State) -> None:
            def alive(event: Event) -> None:
                watchdog.allow("evals", 60 * loop.eval_minutes)
                report(event)

            watchdog.allow("evals", 60 * loop.eval_minutes)
            with clock.paused(), jax.transfer_guard("allow"):
                params = step_fn.whole(state, fixed)
                for each in run.evals:
                    if each.due(step, run.batch_rows * row_length):
                        each.run(step, params, mesh, alive)
            watchdog.allow("step after evals", 60 * loop.start_minutes)  # it may be the first, and compile

        def roll_back(step: int) -> State:
            """Returns the newest checkpoint's state, to go on with after `step`.

            It is saved at once, so that a run that is killed does not roll back again.
            """
            watchdog.allow("rollback", 60 * loop.start_minutes)
            with jax.transfer_guard("allow"):
                state, _, meta = _first_state(run, origin, mesh, step_fn, checkpoints, events)
                back = int(state.step)
            skips.roll_back(back, step)
            what = (
                f"{guard.patience} bad steps in a row: back to the parameters of step {back}, on with step {step + 1}"
            )
            events("rollback", step, what, to=back)
            if skips.count("rollback") > guard.rollbacks:
                raise _hopeless(run, step, f"{guard.rollbacks} rollbacks were not enough")
            clock.jump(step, meta.get("productive_seconds", 0.0))
            state = state._replace(step=_scalar(step, step_fn))
            if tracer is not None:
                tracer.forget_after(step)
            save(step, state)
            return state

        if start in pending_steps(meta):
            evaluate(start, state)

        # --- The loop. Step N is dispatched before the metrics of step N-1 are read.
        feed = stack.enter_context(contextlib.closing(_Feed(run, mesh, start)))
        is_compared = is_own_reference(facts)
        if start == 0 and (isinstance(run.step.learn, Lora) or is_compared):
            first = _on_device(feed.next(0), step_fn, run.batch_rows)
            if isinstance(run.step.learn, Lora):
                check_adapters_off(run.step, mesh, state, fixed, first)
            if is_compared:
                check_margins(run.step, mesh, step_fn.split, state, fixed, first)
        stop = stack.enter_context(StopSignal())
        stack.enter_context(jax.transfer_guard("disallow"))
        pending: Pending | None = None
        while step < steps:
            profiler.before(step + 1)
            with clock.waiting():
                batch = _on_device(feed.next(step), step_fn, run.batch_rows)
            state, values = step_fn.run(state, fixed, batch)
            step += 1
            clock.stepped()
            if tracer is not None:
                tracer.add(step, values["token_losses"], values["token_counts"], batch.segments)
            streak = settle(*pending) if pending is not None else 0
            pending = step, values
            profiler.after(step, values)
            is_late = 0 < loop.checkpoint_minutes <= clock.minutes_since_save()
            is_asked, is_due = agreement(step, stop=stop.asked, save=is_late)
            is_last = step == steps
            evals_due = any(each.due(step, run.batch_rows * row_length) for each in run.evals)
            must_save = is_last or is_asked or evals_due
            if streak < guard.patience and (must_save or is_due or step % loop.checkpoint_every == 0):
                streak = settle(*pending)
                pending = None
                if streak == 0 or (must_save and streak < guard.patience):  # after bad steps the state is suspect
                    save(step, state, (step,) if evals_due else ())
                    if evals_due and not is_asked:  # else it is the first thing that the next start does
                        evaluate(step, state)
            if streak >= guard.patience:
                step -= pending is not None  # of two steps in flight, the first was bad: the second runs again
                pending = None
                state = roll_back(step)
                is_last = step == steps
            watchdog.allow("step", 60 * loop.step_minutes)
            if is_asked and not is_last:
                events("interrupted", step)
                raise Interrupted(f"{run.name}: stopped at step {step} of {steps}; everything is saved")
        watchdog.allow("shutdown", 60 * loop.shutdown_minutes)

    # --- Finished: the rows are those that were planned, and the last checkpoint is on disk before the marker is.
    check_ledger(ledger, counted)
    done = {
        "steps": steps,
        "tokens": (steps - skips.steps()) * run.batch_rows * row_length,
        "batch_rows": run.batch_rows,
        "skipped": skips.to_json(),
        "rows": counted.to_json(),
        "plan": run.plan.digest(),
        "parameters": parameters_digest(state.trained),
    }
    if is_first_process:
        write_json(run_dir / DONE, done)


class _Feed:
    """A `_Feed` gives this host's batches: `next(step)` is the one that takes the run from `step` to the step after."""

    def __init__(self, run: Run, mesh: Mesh, start: int):
        self._run, self._at, self._part = run, start, host_part(mesh)
        self._batches = self._open(start)

    def next(self, step: int) -> Batch:
        """Returns the batch after `step`, usually the pipeline's next; after a rollback the pipeline is opened anew."""
        if step != self._at:
            self.close()
            self._batches = self._open(step)
        self._at = step + 1
        batch = next(self._batches)
        check_tokens(self._run, step + 1, batch)
        return batch

    def close(self) -> None:
        self._batches.close()

    def _open(self, start: int) -> Any:
        run, (part, parts) = self._run, self._part
        steps = {"start_step": start, "stop_step": run.step.steps}
        return load_batches(run.plan, run.stores, run.batch_rows, host=part, hosts=parts, **steps)


def _first_state(
    run: Run, origin: Origin, mesh: Mesh, step_fn: TrainStep, checkpoints: Checkpoints, events: EventLog
) -> tuple[State, Fixed, Mapping[str, Any]]:
    """Returns (state, what is not trained, meta of the checkpoint that the state is from, {} for a fresh state)."""
    restored: Restored | None = checkpoints.restore_latest(step_fn.abstract()[0], events)
    fresh, fixed = None, Fixed()
    if restored is None or not isinstance(run.step.learn, Full):  # what is frozen is not in a checkpoint
        fresh, fixed = step_fn.start(_whole_model(run, origin, mesh, step_fn), run.seed)
    if run.reference:
        fixed = fixed._replace(reference=_reference(run, mesh))
    if restored is None:
        assert fresh is not None
        return fresh, fixed, {}
    return restored.state._replace(step=_scalar(restored.state.step, step_fn)), fixed, restored.meta


def _whole_model(run: Run, origin: Origin, mesh: Mesh, step_fn: TrainStep) -> Any:
    """Returns the parameters that the run starts from: its parent's, or fresh ones."""
    if not run.start_from:
        return step_fn.fresh_params(run.seed)
    parent = load(run.start_from, origin.step, mesh=mesh)
    if parent.config.architecture != run.step.model.architecture:
        raise UserError(
            f"{run.start_from} holds another architecture",
            where="model",
            fix="give the study a new --workdir, or the model settings it was trained with",
        )
    return parent.params


def _reference(run: Run, mesh: Mesh) -> Any:
    """The parameters of the model that the objective compares with, adapters merged."""
    found = load(run.reference, mesh=mesh)
    fix = "name a stage of this study: all of them have one model and one tokenizer"
    if found.config.architecture != run.step.model.architecture:
        raise UserError(f"{run.reference} holds another architecture", where="stages.STAGE.reference", fix=fix)
    if found.tokenizer.digest != load_tokenizer(run.tokenizer).digest:
        raise UserError(f"{run.reference} has another tokenizer", where="stages.STAGE.reference", fix=fix)
    return found.params


def _scalar(step: int, step_fn: TrainStep) -> jax.Array:
    return jax.device_put(np.int32(step), step_fn.shardings.step)


def _on_device(batch: Batch, step_fn: TrainStep, batch_rows: int) -> Batch:
    return jax.tree.map(lambda part: put_part(part, step_fn.batch, batch_rows), batch)


def _clock(run: Run, mesh: Mesh, start: int, before: float, productive: float, first_start: float) -> Clock:
    row_length = next(iter(run.stores.values())).header.length
    tokens = run.batch_rows * row_length
    return Clock(
        start,
        tokens_per_step=tokens,
        flops_per_step=tokens * run.step.model.flops_per_token(row_length),
        peak_flops=mesh.size * (run.loop.peak_flops or peak_flops(mesh.devices.flat[0].device_kind)),
        before=before,
        productive=productive,
        first_start=first_start,
    )


def _open_trackers(run: Run, start: int, stack: contextlib.ExitStack) -> list[Tracker]:
    config = to_mapping(run.step) | {"training": to_mapping(run.loop)} | dict(run.labels)
    trackers = [open_tracker(spec, run.run_dir, run.name, config, start) for spec in run.loop.trackers]
    for tracker in trackers:
        stack.callback(tracker.close)
    return trackers


def _hopeless(run: Run, step: int, what: str) -> UserError:
    return UserError(
        f"{what} at step {step} of {run.name}",
        where="stages.STAGE.schedule.peak and stages.STAGE.optimizer.guard",
        fix="lower the learning rate, lengthen the warmup, clip harder (optimizer.clip_norm), or let the guard roll "
        "back (optimizer.guard.action=rollback)",
    )
