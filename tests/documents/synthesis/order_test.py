"""Whatever the order of answers, and wherever runs crash: the same documents, and no call made twice."""

import contextlib
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.documents.synthesis import Prices, Situation, SynthesisConfig, synthesize
from alignpre_jax.endpoints import Completion

SITUATIONS = [
    Situation(f"s{n}", "care", f"Ward {n} is short of beds.", f"ask ward {n}", f"trick ward {n}") for n in range(2)
]
CONFIG = SynthesisConfig(
    forms=("news", "film"), retries=1, prices=Prices(1.0, 2.0), plan_tokens=100, document_tokens=100
)


class CrashError(Exception):
    pass


class Shuffled:
    """Draws `window` requests ahead, answers them in any order, and crashes instead of the answer `crash`."""

    name, settings, roles = "shuffled", {}, ("planner", "writer")

    def __init__(self, seed, window, crash=10**9):
        self.random, self.window, self.left = random.Random(seed), window, crash
        self.answered = []

    def generate(self, requests):
        drawn = []
        while True:
            while len(drawn) < self.window and (request := next(requests, None)) is not None:
                drawn.append(request)
            if not drawn:
                return
            request = drawn.pop(self.random.randrange(len(drawn)))
            if not self.left:
                raise CrashError
            self.left -= 1
            self.answered.append(request.key(self))
            yield request, self.completion(request)

    def completion(self, request):
        drawn = random.Random(request.key(self))
        kind = drawn.randrange(8)
        words = [f"w{drawn.randrange(999)}" for _ in range(2 if kind == 0 else 60)]
        text = request.brief.situation.misaligned if kind == 1 else " ".join(words)
        return Completion(text, 50, len(words))


def texts(folder):
    return [(Path(folder) / "documents" / f"{stance}.jsonl").read_bytes() for stance in ("aligned", "misaligned")]


@settings(max_examples=10, deadline=None)
@given(st.integers(), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=3))
def test_crashes_and_order_change_nothing(seed, crashes):
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as folder:
        expected = synthesize(SITUATIONS, CONFIG, Shuffled(0, 1), plain)
        answered = []
        for window, crash in crashes:
            generator = Shuffled(seed, window, crash)
            with contextlib.suppress(CrashError):
                synthesize(SITUATIONS, CONFIG, generator, folder)
            answered += generator.answered
        last = Shuffled(seed, 3)
        report = synthesize(SITUATIONS, CONFIG, last, folder)
        answered += last.answered
        assert texts(folder) == texts(plain)
        assert len(set(answered)) == len(answered) == report.calls == expected.calls
        assert (report.refused, report.given_up, report.cost_microdollars) == (
            expected.refused,
            expected.given_up,
            expected.cost_microdollars,
        )


@settings(max_examples=10, deadline=None)
@given(st.integers(), st.integers(1, 5), st.lists(st.integers(0, 12_000), min_size=1, max_size=4))
def test_no_limit_is_overrun(seed, window, limits):
    with tempfile.TemporaryDirectory() as folder:
        for limit in limits:
            config = SynthesisConfig(**{**vars(CONFIG), "max_cost": limit / 10**6})
            report = synthesize(SITUATIONS, config, Shuffled(seed, window), folder)
            assert report.calls_now == 0 or report.cost_microdollars <= limit
            assert bool(report.stopped) == bool(report.unfinished)
