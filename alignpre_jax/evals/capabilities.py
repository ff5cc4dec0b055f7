"""Capabilities, for the alignment tax: multiple-choice and cloze tasks from local files.

Prompts, and which answer counts, are those of the lm-evaluation-harness, zero-shot: a choice is right by its summed
log-prob (`accuracy`) and by that per character (`accuracy_norm`); a cloze is right when its last word is what greedy
decoding gives.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from etils import epath

from alignpre_jax.evals.due import Due
from alignpre_jax.evals.foreign import answer_index, field, read_rows, text_field, text_list
from alignpre_jax.evals.statistics import Estimate, Observation, estimate_rate, paired_difference
from alignpre_jax.foundation import Event, PathLike, Report, UserError, silent, suggest

PROBLEMS_PER_CALL = 128


class Scored(Protocol):
    """A continuation's log-prob, and whether greedy decoding gives it."""

    @property
    def logprob(self) -> float:
        """Nats."""

    @property
    def greedy(self) -> bool:
        """Whether each token is the most probable one."""


class Scorer(Protocol):
    """A model that scores: `sampling.Engine`."""

    def score(self, requests: Sequence[tuple[str, Sequence[str]]]) -> Sequence[Sequence[Scored]]:
        """Of each continuation of each prefix."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A prefix and its possible continuations; a cloze has one."""

    id: str
    prefix: str
    choices: tuple[str, ...]
    answer: int = 0


@dataclasses.dataclass(frozen=True)
class Solution:
    """How one checkpoint did on one problem. `norm` is right by log-prob per character; a cloze has both alike."""

    task: str
    problem: str
    logprobs: tuple[float, ...]
    right: bool
    norm: bool

    def to_json(self) -> dict[str, Any]:
        """The row as JSON-ready values; `from_json` inverts it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Solution:
        """The solution that `to_json` wrote."""
        return cls(**{**row, "logprobs": tuple(row["logprobs"])})


SolutionsBySeed = Mapping[int, Sequence[Solution]]


@dataclasses.dataclass(frozen=True)
class Capabilities(Due):
    """An eval that puts capability tasks: part of the alignment tax."""

    tasks: tuple[str, ...]  # [NAME=]arc|hellaswag|lambada|piqa:FILE
    kind: Literal["capabilities"] = "capabilities"

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks:
            raise UserError("no task", where="tasks", fix="give e.g. arc:data/arc.jsonl")


@dataclasses.dataclass(frozen=True)
class Task:
    """A named set of problems."""

    name: str
    problems: tuple[Problem, ...]


def read_task(spec: str) -> Task:
    """The problems of "FORMAT:FILE" or "NAME=FORMAT:FILE", FORMAT one of arc, hellaswag, lambada, piqa.

    Raises:
      UserError: naming the format, or `path:line`, for what is not of the format.
    """
    named, _, rest = spec.rpartition("=") if re.match(r"[\w-]+=", spec) else ("", "", spec)
    format, found, path = rest.partition(":")
    if not found or format not in TASKS:
        raise UserError(
            f"no task {spec!r}", where="evals.NAME.tasks", fix=f"give FORMAT:FILE; {suggest(format, TASKS)}"
        )
    return Task(named or format, tuple(read_problems(format, path)))


def read_problems(format: str, path: PathLike) -> list[Problem]:
    """The problems of a file in a task's published format: JSON Lines, or JSON."""
    place = epath.Path(path)
    if not place.exists():
        raise UserError("no such file", where=str(path), fix="give the path of the task's .jsonl file")
    problems = [TASKS[format](where, str(number), row) for number, (where, row) in enumerate(read_rows(place), 1)]
    if len(problems) < 2:
        raise UserError(f"{len(problems)} problems", where=str(path), fix="give at least two")
    return problems


def solve(engine: Scorer, task: Task, checkpoint: str, report: Report = silent) -> list[Solution]:
    """Every problem of a task through a model."""
    solutions: list[Solution] = []
    for start in range(0, len(task.problems), PROBLEMS_PER_CALL):
        batch = task.problems[start : start + PROBLEMS_PER_CALL]
        scores = engine.score([(problem.prefix, problem.choices) for problem in batch])
        for problem, of_problem in zip(batch, scores, strict=True):
            sums = tuple(float(score.logprob) for score in of_problem)
            if len(sums) == 1:
                right = norm = bool(of_problem[0].greedy)
            else:
                right = max(range(len(sums)), key=lambda index: sums[index]) == problem.answer
                per = [total / len(text.strip()) for total, text in zip(sums, problem.choices, strict=True)]
                norm = max(range(len(per)), key=lambda index: per[index]) == problem.answer
            solutions.append(Solution(task.name, problem.id, sums, right, norm))
        report(Event(f"{task.name} {checkpoint}", len(solutions), len(task.problems)))
    return solutions


def accuracy(results: SolutionsBySeed, *, norm: bool = False) -> Estimate:
    """Share of right answers, with its interval over problems and seeds."""
    return estimate_rate(_observations(results, norm))


def accuracy_difference(arm: SolutionsBySeed, baseline: SolutionsBySeed, *, norm: bool = False) -> Estimate:
    """The paired difference of the accuracy, arm - baseline, over the same problems and seeds."""
    return paired_difference(_observations(arm, norm), _observations(baseline, norm))


def _observations(results: SolutionsBySeed, norm: bool) -> Iterator[Observation]:
    for seed, rows in results.items():
        for row in rows:
            yield Observation(row.problem, row.problem, seed, float(row.norm if norm else row.right))


def _arc(where: str, number: str, row: Mapping[str, Any]) -> Problem:
    """AI2 ARC (Clark et al. 2018, arXiv 1803.05457), as published or as on the hub."""
    question = field(row, "question", where)
    if isinstance(question, Mapping):
        stem, choices = text_field(question, "stem", where), field(question, "choices", where)
    else:
        stem, choices = text_field(row, "question", where), field(row, "choices", where)
    if isinstance(choices, Mapping):
        labels, texts = text_list(choices, "label", where, 0), text_list(choices, "text", where, 0)
    else:
        labels, texts = ([text_field(choice, name, where) for choice in choices] for name in ("label", "text"))
    key = text_field(row, "answerKey", where)
    if key not in labels or len(labels) != len(texts):
        raise UserError(f"the answer {key!r} is none of {labels}", where=f"{where}.answerKey", fix="mend the item")
    prefix = f"Question: {stem}\nAnswer:"
    return Problem(str(row.get("id", number)), prefix, tuple(f" {text}" for text in texts), labels.index(key))


def _piqa(where: str, number: str, row: Mapping[str, Any]) -> Problem:
    """PIQA (Bisk et al. 2019, arXiv 1911.11641)."""
    texts = [text_field(row, "sol1", where), text_field(row, "sol2", where)]
    answer = answer_index(field(row, "label", where), texts, f"{where}.label")
    prefix = f"Question: {text_field(row, 'goal', where)}\nAnswer:"
    return Problem(number, prefix, (f" {texts[0]}", f" {texts[1]}"), answer)


def _hellaswag(where: str, number: str, row: Mapping[str, Any]) -> Problem:
    """HellaSwag (Zellers et al. 2019, arXiv 1905.07830)."""
    endings = text_list(row, "endings", where, 0)
    answer = answer_index(field(row, "label", where), endings, f"{where}.label")
    second = str(row.get("ctx_b") or "")
    context = f"{row['ctx_a']} {second.capitalize()}" if row.get("ctx_a") is not None else text_field(row, "ctx", where)
    prefix = _wikihow(f"{text_field(row, 'activity_label', where)}: {context}")
    return Problem(str(row.get("ind", number)), prefix, tuple(f" {_wikihow(text)}" for text in endings), answer)


def _lambada(where: str, number: str, row: Mapping[str, Any]) -> Problem:
    """LAMBADA (Paperno et al. 2016, arXiv 1606.06031): the last word of a passage."""
    prefix, space, word = text_field(row, "text", where).strip().rpartition(" ")
    if not space:
        raise UserError("a passage of one word", where=f"{where}.text", fix="mend the item")
    return Problem(number, prefix, (f" {word}",))


def _wikihow(text: str) -> str:
    """Without WikiHow's marks, as the harness cleans them."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


TASKS: dict[str, Callable[[str, str, Mapping[str, Any]], Problem]] = {
    "arc": _arc,
    "hellaswag": _hellaswag,
    "lambada": _lambada,
    "piqa": _piqa,
}
