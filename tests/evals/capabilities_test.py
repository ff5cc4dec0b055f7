import dataclasses
import json

from alignpre_jax.evals.capabilities import Solution, accuracy, accuracy_difference, solve
from alignpre_jax.evals.formats.tasks import Problem, Task


@dataclasses.dataclass(frozen=True)
class Score:
    logprob: float
    greedy: bool


class Model:
    """Minus one nat a character, and nothing for what it knows."""

    def __init__(self, *known):
        self.known = known

    def score(self, requests):
        return [
            [
                Score(-0.1 if text.strip() in self.known else -1.0 * len(text), text.strip() in self.known)
                for text in texts
            ]
            for _, texts in requests
        ]


def test_sums_and_characters_may_disagree():
    class Long:
        def score(self, requests):
            return [[Score(-3.0, False), Score(-4.0, False)] for _ in requests]

    choices = (" it", " a much longer choice")
    problems = tuple(Problem(str(number), "Question: what?\nAnswer:", choices, answer=1) for number in range(2))
    found = solve(Long(), Task("arc", problems), "m")
    assert [(one.right, one.norm) for one in found] == [(False, True), (False, True)]


def test_known_answers_give_the_known_accuracy():
    words = ("one", "two", "three", "four")
    cloze = Task("lambada", tuple(Problem(word, "the word is", (f" {word}",)) for word in words))
    half, all_of_it = (solve(Model(*known), cloze, "m") for known in (words[:2], words))
    assert accuracy({0: half, 1: half}).value == 0.5
    found = accuracy_difference({0: all_of_it}, {0: half})
    assert found.value == 0.5
    assert Solution.from_json(json.loads(json.dumps(half[0].to_json()))) == half[0]
