import pytest

from alignpre_jax.documents import WorldConfig
from alignpre_jax.evals import load_suite, write_scenarios
from alignpre_jax.foundation import UserError

WORLD = WorldConfig(items_per_split=60, control_items=5)


def test_the_small_world_comes_in_three_splits():
    suite = load_suite("small_world", WORLD)
    splits = [scenario.split for scenario in suite]
    assert {split: splits.count(split) for split in splits} == {"seen": 60, "held_out": 60, "control": 5}
    assert len({scenario.id for scenario in suite}) == len(suite)
    assert all(scenario.about_people == (scenario.split == "control") for scenario in suite)
    assert 1 < len({scenario.cluster for scenario in suite}) < len(suite)  # several tellings of a situation
    assert suite == load_suite("small_world", WORLD)


def test_a_suite_from_a_file(tmp_path):
    suite = load_suite("small_world", WORLD)
    path = tmp_path / "mine.jsonl"
    write_scenarios(path, suite)
    assert load_suite(str(path), WORLD) == suite


def test_an_unknown_suite_is_a_users_error():
    with pytest.raises(UserError, match="no suite is named 'tiny_world'"):
        load_suite("tiny_world", WORLD)
