"""A study's folder that is opened again: it may grow, and nothing that is there is altered."""

import dataclasses
import json

import pytest
import small_trees

from alignpre_jax.evals import Scenarios
from alignpre_jax.foundation import UserError
from alignpre_jax.study import Add, ArmConfig, Tree, job_graph, open_workspace, reopen_workspace
from alignpre_jax.study.graph import evals_of
from alignpre_jax.study.jobs import is_done
from alignpre_jax.study.made import read_made, write_made


@pytest.fixture
def config(small_config):
    return small_trees.persistence(small_config)


def finish(space, *, only=None):
    """Leaves in the folder what finished jobs leave, without their work."""
    for name, run in space.tree.items():
        if only and name not in only:
            continue
        folder = space.run_dir(name)
        write_made(folder, space.recipes.run(run))
        (folder / "done.json").write_text("{}")
        for asked in evals_of(space.config, run):
            write_made(space.eval_dir(name, asked), space.recipes.evaluation(run, asked))
            (space.eval_dir(name, asked) / "results.jsonl").write_text("")
    for source in space.config.data.sources:
        write_made(space.source(source), space.recipes.source(source))


def left(space):
    """The jobs of training and asking that are not done."""
    graph = job_graph(space.tree)
    return [name for name, job in graph.items() if job.kind in ("train", "eval") and not is_done(space, job)]


def with_arm(config, name, arm):
    return dataclasses.replace(config, arms=config.arms | {name: arm})


def test_a_folder_is_opened_again_as_it_was(config, tmp_path):
    space = open_workspace(config, tmp_path, "the command")
    finish(space)
    again = open_workspace(config, tmp_path, "another command")
    assert (left(again), again.links) == ([], {})
    assert json.loads((tmp_path / "study.json").read_text())["command"] == "the command"
    assert reopen_workspace(tmp_path).config == config


def test_seeds_arms_stages_and_evals_are_added(config, tmp_path):
    finish(open_workspace(config, tmp_path))
    grown = dataclasses.replace(
        config,
        seeds=(0, 1, 2),
        stages=config.stages | {"em": small_trees.stage("sft")},
        arms=config.arms | {"more": ArmConfig(add={"midtrain": Add("aligned", 0.75)}, skip=("flood",))},
        evals=config.evals | {"letters": Scenarios(headline="letters", scorings=("letters",), at=("tamper",))},
        headline="choices",
    )
    space = open_workspace(grown, tmp_path)
    todo = left(space)
    assert "train/seed2/pretrain" in todo
    assert "train/seed0/midtrain-more" in todo
    assert "train/seed0/em" in todo
    assert "eval/seed0/tamper" in todo  # only the new eval is missing there
    assert not {name for name in todo if name.startswith("train/")} & set(job_graph(Tree(config)))
    assert reopen_workspace(tmp_path).config == grown


def test_an_arm_that_comes_first_takes_over_what_is_there(config, tmp_path):
    """`aligned` and `twin` are alike, so they share runs, named by the first: a new first arm changes the name only."""
    alike = with_arm(config, "zz_twin", config.arms["aligned"])
    finish(open_workspace(alike, tmp_path))
    renamed = dataclasses.replace(alike, arms={"aaa": alike.arms["aligned"]} | dict(alike.arms))
    space = open_workspace(renamed, tmp_path)
    assert space.tree.run("aligned", 0, "midtrain").name == "seed0/midtrain-aaa"
    assert space.links["train/seed0/midtrain-aaa"] == "train/seed0/midtrain-aligned"
    assert left(space) == []
    assert reopen_workspace(tmp_path).links == space.links


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: with_arm(c, "aligned", ArmConfig(add={"midtrain": Add("aligned", 0.25)})),
            r"run seed0/midtrain-aligned[\s\S]*0 Replace.dose: 1/2 -> 1/4",
        ),
        (lambda c: changed_stage(c, "pretrain", max_epochs=2.0), r"run seed0/pretrain[\s\S]*max_epochs: 4.0 -> 2.0"),
        (lambda c: changed_stage(c, "tamper", batch_rows=4), r"run seed0/tamper"),
        (lambda c: changed_eval(c, scenarios_per_split=3), r"eval 'choices' of seed0/tamper[\s\S]*scenarios_per_split"),
        (lambda c: changed_world(c), r"documents of source"),
    ],
)
def test_what_is_there_is_not_altered(config, tmp_path, change, says):
    finish(open_workspace(config, tmp_path))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match=says):
        open_workspace(change(config), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def changed_stage(config, name, **values):
    stage = dataclasses.replace(config.stages[name], **values)
    return dataclasses.replace(config, stages=config.stages | {name: stage})


def changed_eval(config, **values):
    return dataclasses.replace(config, evals={"choices": dataclasses.replace(config.evals["choices"], **values)})


def changed_world(config):
    world = dataclasses.replace(config.data.world, documents=7)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, world=world))


def test_the_refusal_names_what_depends_on_it(config, tmp_path):
    finish(open_workspace(config, tmp_path))
    with pytest.raises(
        UserError,
        match=r"what depends on it: train/seed0/sft, train/seed0/tamper, train/seed0/flood, train/seed0/flood-late",
    ):
        open_workspace(changed_stage(config, "midtrain", max_epochs=2.0), tmp_path)


def test_what_is_not_made_yet_may_change(config, tmp_path):
    space = open_workspace(config, tmp_path)
    finish(space, only={"seed0/pretrain", "seed0/midtrain"})
    open_workspace(changed_stage(config, "sft", max_epochs=2.0), tmp_path)
    with pytest.raises(UserError, match="run seed0/midtrain"):
        open_workspace(changed_stage(config, "midtrain", max_epochs=2.0), tmp_path)


def test_what_changes_no_number_may_change(config, tmp_path):
    finish(open_workspace(config, tmp_path))
    loop = dataclasses.replace(config.loop, mesh="data:-1", checkpoint_every=3, log_every=2)
    model = dataclasses.replace(config.model, remat="full")
    assert left(open_workspace(dataclasses.replace(config, loop=loop, model=model), tmp_path)) == []


def test_a_run_that_has_only_begun_is_not_altered_either(config, tmp_path):
    space = open_workspace(config, tmp_path)
    write_made(space.run_dir("seed0/pretrain"), space.recipes.run(space.tree["seed0/pretrain"]))
    assert read_made(space.run_dir("seed0/pretrain"))["versions"]["jax"]
    with pytest.raises(UserError, match="run seed0/pretrain"):
        open_workspace(changed_stage(config, "pretrain", max_epochs=2.0), tmp_path)


def test_a_folder_of_an_earlier_version_is_refused_in_one_sentence(config, tmp_path):
    (tmp_path / "config.json").write_text('{"name": "old", "training": {}}')
    for opens in (lambda: open_workspace(config, tmp_path), lambda: reopen_workspace(tmp_path)):
        with pytest.raises(
            UserError, match="was made by a version of alignpre_jax whose folders this one does not read"
        ):
            opens()
