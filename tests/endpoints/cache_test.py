import json
import os
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.documents.synthesis import Prices
from alignpre_jax.endpoints import Completion
from alignpre_jax.endpoints.cache import Cache
from alignpre_jax.foundation import UserError

COMPLETIONS = st.builds(
    Completion,
    text=st.text(alphabet=st.characters(), max_size=20),  # halves of surrogate pairs too
    prompt_tokens=st.integers(0, 10**9),
    completion_tokens=st.integers(0, 10**9),
    finish=st.sampled_from(["stop", "length"]),
    usage=st.sampled_from(["reported", "bounded"]),
)


@settings(max_examples=40, deadline=None)
@given(completions=st.lists(COMPLETIONS, min_size=1, max_size=4), cut=st.floats(0, 1))
def test_what_was_added_is_found_again_and_half_a_line_is_not(tmp_path_factory, completions, cut):
    path = tmp_path_factory.mktemp("cache") / "completions.cache"
    prices = Prices(0.15, 0.6)
    costs = [prices.cost(c.prompt_tokens, c.completion_tokens) for c in completions]
    sizes = []
    with Cache(path) as cache:
        for number, (completion, cost) in enumerate(zip(completions, costs, strict=True)):
            cache.add(str(number), "writer", completion, cost)
            sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(cut * len(whole))])
    left = sum(size <= round(cut * len(whole)) for size in sizes)
    with Cache(path) as cache:
        assert [cache.get(str(n)) for n in range(len(completions))] == completions[:left] + [None] * (
            len(completions) - left
        )
        assert cache.cost == sum(costs[:left])
        assert cache.counts["prompt_tokens"] == sum(c.prompt_tokens for c in completions[:left])
        for number in range(left, len(completions)):
            cache.add(str(number), "writer", completions[number], costs[number])
    assert path.read_bytes() == whole


def test_prices_are_exact():
    assert Prices(0.15, 0.6).cost(1, 1) == Fraction(3, 4)
    assert Prices(2.5, 10).cost(10**6, 10**6) == 12_500_000
    with pytest.raises(UserError):
        Prices(-1)


def test_one_process_at_a_time(tmp_path):
    code = f"from alignpre_jax.endpoints.cache import Cache; Cache({str(tmp_path / 'c')!r})"
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with Cache(tmp_path / "c"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
        assert "another process writes to this folder" in done.stderr
    Cache(tmp_path / "c").__exit__()


@pytest.mark.parametrize("line", ["not JSON", "[]", '{"key": "x"}', '{"format": "alignpre.completions", "version": 1}'])
def test_a_damaged_line_is_told_with_its_place(tmp_path, line):
    path = tmp_path / "c"
    with Cache(path) as cache:
        cache.add("a", "writer", Completion("text"), Fraction(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError) as caught:
        Cache(path)
    assert caught.value.where == f"{path}:3"


def test_another_file_is_not_taken_for_a_cache(tmp_path):
    path = tmp_path / "c"
    path.write_text(json.dumps({"id": "a", "text": "a document"}) + "\n")
    with pytest.raises(UserError) as caught:
        Cache(path)
    assert caught.value.where == f"{path}:1"
    assert "a document" in path.read_text()
