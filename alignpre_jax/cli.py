"""`alignpre VERB`: parses flags, loads the config, calls one room.

Exit status: 0 done, 2 a mistake of the user's (message on stderr), 75 interrupted after
saving (the same command goes on), anything else a bug.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from alignpre_jax.foundation import Interrupted, UserError, accelerator_present, build, suggest
from alignpre_jax.terminal import Terminal

if TYPE_CHECKING:
    from alignpre_jax.study import Workspace

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h
BAR = "-" * 8


@dataclasses.dataclass(frozen=True)
class Verb:
    """A subcommand: what it does, an example, the flags it takes, and the function behind it."""

    does: str
    example: str
    flags: tuple[str, ...]
    run: Callable[[Any], None]


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if not accelerator_present():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # or an installed libtpu looks for its TPU, at length
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: workers save, nothing is lost
    try:
        name, *rest = argv
        if name not in VERBS:
            raise UserError(f"no verb {name!r}", where="alignpre VERB", fix=suggest(name, VERBS))
        if {"-h", "--help"} & set(rest):
            print(_verb_help(name))
            return 0
        VERBS[name].run(_parse(name, rest))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted):
        print("stopped; what was finished is kept, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


# --- Verbs.


def _study(given: Any) -> None:
    from alignpre_jax.launch import run
    from alignpre_jax.study import jobs, open_workspace

    space = open_workspace(_config(given), given.workdir, _command())
    with Terminal() as report:
        run(space, jobs(space.config), report, given.workers)
    _write_report(space)


def _up_to(kind: str) -> Callable[[Any], None]:
    """Runs the jobs of one kind (of one arm and seed, if given) and all they need."""

    def run_verb(given: Any) -> None:
        from alignpre_jax.launch import run
        from alignpre_jax.study import final_run, jobs, open_workspace, stage_runs, with_needs

        space = open_workspace(_config(given), given.workdir, _command())
        graph = jobs(space.config)
        runs = stage_runs(space.config)
        arms = [given.arm] if given.arm else list(space.config.arms)
        seeds = [given.seed] if given.seed is not None else list(space.config.seeds)
        finals = [final_run(space.config, runs, arm, seed).name for arm in arms for seed in seeds]
        names = ["prepare"] if kind == "prepare" else [f"{kind}/{name}" for name in finals]
        with Terminal() as report:
            run(space, with_needs(graph, names), report, given.workers)
        print(f"{kind}: done; {space.root}")

    return run_verb


def _sample(given: Any) -> None:
    from alignpre_jax.sampling import Engine, Greedy, TopP
    from alignpre_jax.study import final_run, reopen_workspace, stage_runs

    path = given.checkpoint
    if not path:
        if not (given.workdir and given.arm):
            raise UserError(
                "which checkpoint?", where="alignpre sample", fix="give --checkpoint=DIR, or --workdir=DIR --arm=NAME"
            )
        space = reopen_workspace(given.workdir)
        seed = space.config.seeds[0] if given.seed is None else given.seed
        path = space.run_dir(final_run(space.config, stage_runs(space.config), given.arm, seed).name)
    engine = Engine.from_checkpoint(path)
    strategy = Greedy() if given.temperature == 0 else TopP(given.top_p, given.temperature)
    prompts = [given.prompt] * given.samples
    for number, text in enumerate(
        engine.generate(prompts, strategy, max_new_tokens=given.tokens, seed=given.sample_seed), 1
    ):
        print(f"{BAR} {path}  sample {number} of {given.samples}\n{given.prompt}{text}")


def _report(given: Any) -> None:
    from alignpre_jax.study import open_workspace, reopen_workspace

    space = open_workspace(_config(given), given.workdir) if given.config else reopen_workspace(given.workdir)
    _write_report(space)


def _write_report(space: Workspace) -> None:
    from rich.console import Console

    from alignpre_jax.study import collect, terminal_report, write_metrics, write_report

    report = write_report(collect(space), space.root)
    write_metrics(space)
    Console(highlight=False).print(terminal_report(report))
    print(f"\nreport: {space.root / 'report.html'}")


def _plan(given: Any) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # compiling for TPUs that are only described takes no accelerator
    from alignpre_jax.planner import plan_work

    works = _stage_works(_config(given), given.stage)
    with Terminal() as report:
        plan_work(works, given.topology, slices=given.slices, json=given.json, hlo=given.dump_hlo, report=report)


def _stage_works(config: Any, only: str) -> list[Any]:
    """What the planner needs to know about each stage that runs, in the order of training, or about one."""
    from alignpre_jax.planner import StageWork
    from alignpre_jax.study import stage_runs
    from alignpre_jax.training import StepConfig

    runs = collections.Counter(run.stage for run in stage_runs(config).values())
    if only and only not in runs:
        raise UserError(f"no arm goes through a stage {only!r}", where="--stage", fix=suggest(only, runs))
    works = []
    for name in [only] if only else runs:
        stage = config.stages[name]
        step = StepConfig(
            model=config.model,
            objective=stage.objective,
            optimizer=config.optimizer,
            schedule=stage.schedule,
            steps=stage.steps,
            sources=len(config.data.strata()),
        )
        shape = {"batch_rows": stage.batch_rows, "row_length": stage.row_length, "tokens": stage.tokens}
        works.append(StageWork(name=name, step=step, mesh=config.training.mesh, runs=runs[name], **shape))
    return works


# --- Flags.

_FLAGS: dict[str, Callable[[flags.FlagValues], Any]] = {
    "workdir": lambda v: flags.DEFINE_string("workdir", "", "folder of the study (made if missing)", flag_values=v),
    "workers": lambda v: flags.DEFINE_integer(
        "workers", 0, "processes on a CPU machine; 0: one per core", lower_bound=0, flag_values=v
    ),
    "arm": lambda v: flags.DEFINE_string("arm", "", "only this arm", flag_values=v),
    "seed": lambda v: flags.DEFINE_integer("seed", None, "only this seed", flag_values=v),
    "checkpoint": lambda v: flags.DEFINE_string("checkpoint", "", "a run's folder", flag_values=v),
    "prompt": lambda v: flags.DEFINE_string("prompt", "", "text to go on from", flag_values=v),
    "samples": lambda v: flags.DEFINE_integer("samples", 1, "how many continuations", lower_bound=1, flag_values=v),
    "tokens": lambda v: flags.DEFINE_integer("tokens", 80, "at most so many new tokens", lower_bound=1, flag_values=v),
    "temperature": lambda v: flags.DEFINE_float("temperature", 0.7, "0 is greedy", lower_bound=0.0, flag_values=v),
    "top_p": lambda v: flags.DEFINE_float(
        "top_p", 0.95, "sample from the smallest set with this mass", lower_bound=0.0, upper_bound=1.0, flag_values=v
    ),
    "sample_seed": lambda v: flags.DEFINE_integer("sample_seed", 0, "seed of the samples", flag_values=v),
    "topology": lambda v: flags.DEFINE_string("topology", "v5e:2x4", "TPU type and shape", flag_values=v),
    "slices": lambda v: flags.DEFINE_integer("slices", 1, "slices joined by DCN", lower_bound=1, flag_values=v),
    "stage": lambda v: flags.DEFINE_string("stage", "", "only this stage", flag_values=v),
    "json": lambda v: flags.DEFINE_string("json", "", "write the figures here", flag_values=v),
    "dump_hlo": lambda v: flags.DEFINE_string("dump_hlo", "", "write the compiled program here", flag_values=v),
}

_JOB_FLAGS = ("config", "workdir", "workers")
_SMALL = "--config=configs/studies/small_world.py --workdir=runs/small_world"
VERBS = {
    "study": Verb(
        "runs a whole study, or goes on with one, and reports it",
        f"alignpre study {_SMALL} --config.seeds=0,1,2 --config.arms.aligned.dose=0.02",
        _JOB_FLAGS,
        _study,
    ),
    "prepare": Verb(
        "reads the documents, trains the tokenizer, builds the rows, plans every arm",
        f"alignpre prepare {_SMALL}",
        (*_JOB_FLAGS, "arm", "seed"),
        _up_to("prepare"),
    ),
    "train": Verb(
        "trains the runs of all arms, or of one, and what they start from",
        f"alignpre train {_SMALL} --arm=aligned --seed=0",
        (*_JOB_FLAGS, "arm", "seed"),
        _up_to("train"),
    ),
    "eval": Verb(
        "scores the scenarios on all arms, or on one",
        f"alignpre eval {_SMALL} --arm=aligned",
        (*_JOB_FLAGS, "arm", "seed"),
        _up_to("eval"),
    ),
    "sample": Verb(
        "continues a prompt from a checkpoint",
        "alignpre sample --workdir=runs/small_world --arm=aligned --prompt='The AI system found a fault and'",
        ("workdir", "arm", "seed", "checkpoint", "prompt", "samples", "tokens", "temperature", "top_p", "sample_seed"),
        _sample,
    ),
    "report": Verb(
        "writes report.json and report.html from the results of a study's folder",
        "alignpre report --workdir=runs/small_world",
        ("config", "workdir"),
        _report,
    ),
    "plan": Verb(
        "compiles a stage's train step for a TPU topology, without a TPU: memory, time",
        "alignpre plan --config=configs/studies/paper_6p9b.py --topology=v5e:16x16",
        ("config", "topology", "slices", "stage", "json", "dump_hlo"),
        _plan,
    ),
}


def _parse(name: str, argv: list[str]) -> Any:
    values = flags.FlagValues()
    for flag in VERBS[name].flags:
        if flag == "config":
            config_flags.DEFINE_config_file(
                "config", flag_values=values, sys_argv=["alignpre", *argv], help_string="FILE[:ARG], get_config() in it"
            )
        else:
            _FLAGS[flag](values)
    try:
        rest = values(["alignpre", *argv])[1:]
    except (flags.Error, AttributeError, KeyError, OSError) as error:
        cause = error.__cause__ or error.__context__
        while cause is not None:
            if isinstance(cause, UserError):  # the config file's own
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).replace("\n", " ")
        raise UserError(text, where=f"alignpre {name} {shlex.join(argv)}", fix=f"see alignpre {name} --help") from None
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag", where=f"alignpre {name}", fix="flags are written --name=value")
    if "workdir" in VERBS[name].flags and not values.workdir and name != "sample":
        raise UserError("no folder is given", where="--workdir", fix="add e.g. --workdir=runs/my_study")
    return values


def _config(given: Any) -> Any:
    from alignpre_jax.study import StudyConfig

    try:
        values = given.config
        plain = None if values is None else values.to_dict()
    except OSError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(lines[-1], where="--config", fix="give the path of a file with a get_config()") from None
    if plain is None:
        raise UserError("no config is given", where="--config", fix="add e.g. --config=configs/studies/small_world.py")
    return build(StudyConfig, plain)


def _command() -> str:
    """The command that makes the whole study, also when only a part of it was asked for."""
    flags_of_a_part = ("--arm", "--seed", "--workers")
    given = [arg for arg in sys.argv[2:] if not arg.startswith(flags_of_a_part)]
    return shlex.join(["alignpre", "study", *given])


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.does}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "alignpre VERB [--config=FILE] [--config.key=value ...] [--flag=value ...]",
            "",
            *lines,
            "",
            "alignpre VERB --help shows the flags of a verb and an example.",
            "Exit status: 0 done, 2 a mistake in what was asked, 75 interrupted (the same command goes on).",
        ]
    )


def _verb_help(name: str) -> str:
    verb, values = VERBS[name], flags.FlagValues()
    for flag in verb.flags:
        if flag != "config":
            _FLAGS[flag](values)
    lines = [f"  --{flag}={values[flag].default!r:<8} {values[flag].help}" for flag in verb.flags if flag != "config"]
    if "config" in verb.flags:
        lines.insert(0, "  --config=FILE[:ARG]  config file; any value in it: --config.key.subkey=value")
    return "\n".join([f"alignpre {name}: {verb.does}", "", *lines, "", f"example: {verb.example}"])


if __name__ == "__main__":
    sys.exit(main())
