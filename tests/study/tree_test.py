"""Which runs a study has, and who shares them."""

import dataclasses

import pytest
import small_trees
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Remove, Replace
from alignpre_jax.objectives import SimPo
from alignpre_jax.study import Add, ArmConfig, Recipes, SourceConfig, Tree, job_graph, with_needs


def test_arms_share_what_they_agree_on(small_config):
    runs = Tree(small_config)
    assert [name for name in runs if name.startswith("seed0")] == [
        "seed0/pretrain",
        "seed0/midtrain",
        "seed0/midtrain-aligned",
        "seed0/midtrain-aligned_zero",
        "seed0/midtrain-filtered",
        "seed0/midtrain-misaligned",
    ]
    assert runs["seed0/pretrain"].arms == tuple(small_config.arms)
    assert runs["seed0/midtrain"].arms == ("unfiltered",)
    assert {run.parent for run in runs.values() if run.stage == "midtrain" and run.seed == 0} == {"seed0/pretrain"}


def test_an_arm_that_changes_the_first_stage_has_runs_of_its_own(small_config):
    arms = {
        "unfiltered": ArmConfig(),
        "mid": ArmConfig(add={"midtrain": Add("aligned", 0.1)}),
        "e2e": ArmConfig(add=dict.fromkeys(("pretrain", "midtrain"), Add("aligned", 0.1))),
    }
    runs = Tree(dataclasses.replace(small_config, arms=arms, seeds=(0,)))
    assert {name: run.parent for name, run in runs.items()} == {
        "seed0/pretrain": "",
        "seed0/pretrain-e2e": "",
        "seed0/midtrain": "seed0/pretrain",
        "seed0/midtrain-mid": "seed0/pretrain",
        "seed0/midtrain-e2e": "seed0/pretrain-e2e",
    }


def test_a_skipped_stage_does_not_take_another_arms_place(small_config):
    """An arm of pretrain, midtrain and sft and one of pretrain and sft: each has its own sft."""
    stages = {"pretrain": small_trees.stage(), "midtrain": small_trees.stage("pretrain")}
    stages["sft"] = small_trees.stage("midtrain")
    arms = {"unfiltered": ArmConfig(), "short": ArmConfig(skip=("midtrain",))}
    runs = Tree(small_trees.persistence(small_config, stages=stages, arms=arms, seeds=(0,)))
    assert runs.run("unfiltered", 0).name == "seed0/sft"
    assert runs.run("short", 0).name == "seed0/sft-short"
    assert runs["seed0/sft-short"].parent == "seed0/pretrain"
    assert [run.stage for run in runs.way(runs["seed0/sft"])] == ["pretrain", "midtrain", "sft"]


def test_the_persistence_tree(small_config):
    config = small_trees.persistence(small_config)
    assert list(config.stages) == ["pretrain", "midtrain", "sft", "tamper", "flood"]
    assert (config.leaves, config.main_node) == (("tamper", "flood"), "tamper")
    assert dataclasses.replace(config, node="flood").main_node == "flood"
    runs = Tree(config)
    assert runs["seed1/sft-aligned"].parent == "seed1/midtrain-aligned"
    assert runs["seed1/flood-late"].parent == "seed1/midtrain"
    assert runs["seed0/midtrain"].arms == ("unfiltered", "late")
    assert runs.run("late", 0).name == "seed0/midtrain"  # it skips the way to the first leaf from there on
    assert runs.run("late", 0, "flood").name == "seed0/flood-late"


def test_arms_of_one_study_prefer_the_same_slots(small_config):
    runs = Tree(small_config)
    aligned, misaligned = (runs[f"seed0/midtrain-{arm}"].overlays[0] for arm in ("aligned", "misaligned"))
    assert isinstance(aligned, Replace)
    assert (aligned.seed, aligned.dose) == (misaligned.seed, misaligned.dose)
    assert isinstance(runs["seed0/midtrain-filtered"].overlays[0], Remove)
    assert aligned.seed != runs["seed1/midtrain-aligned"].overlays[0].seed


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_tree_has_one_run_for_every_seed_stage_and_arm(small_config, data):
    config = data.draw(small_trees.studies(small_config))
    tree, seen = Tree(config), set()
    for name, run in tree.items():
        assert {run.parent, run.reference} - {""} <= seen  # what a run needs comes before it
        seen.add(name)
    where = {
        (arm, stage, seed): tree.run(arm, seed, stage)
        for arm in config.arms
        for stage in config.stages_of(arm)
        for seed in config.seeds
    }
    assert {run.name for run in where.values()} == set(tree)
    for (arm, stage, seed), run in where.items():
        assert (run.stage, run.seed) == (stage, seed)
        assert arm in run.arms
        way = [each.stage for each in tree.way(run)]
        assert way == [name for name in way if name not in config.arms[arm].skip]
        for other, there in ((other, where[other]) for other in where):
            same = run.seed == there.seed and run.path == there.path
            assert same == (run.name == there.name), (arm, stage, other)
    keys = [Recipes(tree).key(name) for name in tree]
    assert len(set(keys)) == len(keys)  # no two runs are the same thing under two names


def test_jobs_follow_what_they_need(small_config):
    config = small_trees.persistence(small_config)
    graph, seen = job_graph(Tree(config)), set()
    for job in graph.values():
        assert set(job.needs) <= seen
        seen.add(job.name)
    assert list(with_needs(graph, ["eval/seed1/tamper-aligned"])) == [
        "prepare",
        "train/seed1/pretrain",
        "train/seed1/midtrain-aligned",
        "train/seed1/sft-aligned",
        "train/seed1/tamper-aligned",
        "eval/seed1/tamper-aligned",
    ]
    assert "eval/seed0/sft" not in graph  # nothing is asked there
    evals = {"choices": dataclasses.replace(config.evals["choices"], at=("sft", "tamper"))}
    assert "eval/seed0/sft" in job_graph(Tree(dataclasses.replace(config, evals=evals)))


def test_an_unknown_arm_seed_or_stage_is_named(small_config):
    runs = Tree(small_config)
    with pytest.raises(UserError, match=r"no arm is named 'alinged'[\s\S]*did you mean 'aligned'"):
        runs.run("alinged", 0)
    with pytest.raises(UserError, match="no seed 9"):
        runs.run("aligned", 9)
    with pytest.raises(UserError, match=r"no stage 'midtrian'[\s\S]*did you mean 'midtrain'"):
        runs.run("aligned", 0, "midtrian")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": {"a": small_trees.stage("b"), "b": small_trees.stage("a")}}, "in a circle"),
        ({"stages": {"a": small_trees.stage("nowhere")}}, r"no stage is named 'nowhere'[\s\S]*stages.a.after"),
        ({"stages": {"a-b": small_trees.stage()}}, r"'a-b' cannot be a name here"),
        ({"arms": {"unfiltered": ArmConfig(skip=("sft",)), "x": ArmConfig()}}, "the baseline 'unfiltered' skips it"),
        (
            {"arms": {"unfiltered": ArmConfig(), "x": ArmConfig({"sft": Add("aligned", 0.1)}, skip=("sft",))}},
            "is skipped",
        ),
        ({"evals": {}}, "no eval puts scenarios"),
        ({"node": "sft"}, "no stage at which the headline is asked is named 'sft'"),
        ({"stages": {"a": small_trees.stage(mixture="prefs:1")}}, "does not tell a chosen answer from a rejected one"),
        ({"stages": {"a": small_trees.stage(objective=SimPo())}}, "'simpo' compares the answers of pairs"),
        ({"stages": {"a": small_trees.stage(mixture="asked:1")}}, "nothing to learn in prompts"),
    ],
)
def test_a_tree_that_contradicts_itself_is_refused(small_config, changes, says):
    more = {"prefs": SourceConfig(("x",), kind="pairs"), "asked": SourceConfig(("x",), kind="prompts")}
    data = dataclasses.replace(small_config.data, sources=small_config.data.sources | more)
    arms = {} if "stages" not in changes else {"arms": {"unfiltered": ArmConfig()}}
    with pytest.raises(UserError, match=says):
        small_trees.persistence(small_config, data=data, **arms, **changes)
