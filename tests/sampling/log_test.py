"""The log of results: nothing is computed twice, and an interruption loses at most a portion."""

import dataclasses

import pytest

from alignpre_jax.sampling import Choice, Greedy, Logged, Request, Score, Temperature
from alignpre_jax.sampling.requests import Completion


@dataclasses.dataclass
class Counting:
    """Answers at once, counts, and breaks off when told to."""

    fingerprint: str = "model"
    asked: int = 0
    breaks_after: int = 1000

    def _count(self, requests):
        if self.asked + len(requests) > self.breaks_after:
            raise KeyboardInterrupt
        self.asked += len(requests)
        return requests

    def score(self, requests):
        return [[Score(-len(p) - len(c) / 7, len(c), False) for c in some] for p, some in self._count(requests)]

    def rolling(self, texts):
        return [Score(-0.1 * len(text), len(text), True) for text in self._count(texts)]

    def complete(self, requests):
        return [Completion(f"{r.prompt} {r.seed}", (1, 2, r.seed), "stop") for r in self._count(requests)]


SCORED = [(f"prefix {n}", ("yes", "no")) for n in range(7)]
TEXTS = [Request("a", Temperature(2.0), seed=n) for n in range(3)]


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path):
    first = Logged(Counting(breaks_after=4), tmp_path, portion=2)
    with pytest.raises(KeyboardInterrupt):
        first.score(SCORED)
    told = []
    second = Logged(Counting(), tmp_path, portion=2, report=lambda event: told.append((event.done, event.total)))
    assert second.score(SCORED) == Counting().score(SCORED)
    assert second.computed == 3
    assert told == [(6, 7), (7, 7)]
    assert second.score(SCORED[::-1]) == Counting().score(SCORED)[::-1]
    assert second.computed == 3


def test_all_kinds_come_back_as_they_were(tmp_path):
    engine = Counting()
    logged = Logged(engine, tmp_path)
    wanted = (logged.score(SCORED), logged.rolling(["a", "bc", "a"]), logged.complete(TEXTS))
    assert wanted == (engine.score(SCORED), engine.rolling(["a", "bc", "a"]), engine.complete(TEXTS))
    asked = engine.asked
    again = Logged(engine, tmp_path)
    assert (again.score(SCORED), again.rolling(["a", "bc", "a"]), again.complete(TEXTS)) == wanted
    assert (engine.asked, again.computed) == (asked, 0)


def test_whatever_changes_a_result_changes_its_key(tmp_path):
    engine = Counting()
    variants = [
        TEXTS[0],
        dataclasses.replace(TEXTS[0], seed=9),
        dataclasses.replace(TEXTS[0], number=1),
        dataclasses.replace(TEXTS[0], strategy=Greedy()),
        dataclasses.replace(TEXTS[0], stop=("x",)),
        dataclasses.replace(TEXTS[0], banned=(3,)),
        dataclasses.replace(TEXTS[0], within=Choice(("x",))),
        dataclasses.replace(TEXTS[0], prompt=("a",)),
    ]
    Logged(engine, tmp_path).complete(variants)
    assert engine.asked == len(variants)
    Logged(engine, tmp_path).score([("a", ("b", "c")), ("a", ("c", "b")), ("a", ("b",))])
    assert engine.asked == len(variants) + 3
    other = Logged(Counting(fingerprint="another model"), tmp_path)
    other.complete(variants)
    assert other.computed == len(variants)


def test_it_stands_in_for_an_engine(engine, tmp_path):
    logged = Logged(engine, tmp_path)
    assert logged.generate(["tell me", "so"], Greedy(), 5) == engine.generate(["tell me", "so"], Greedy(), 5)
    assert logged.score([("a", ("b",))]) == engine.score([("a", ("b",))])
