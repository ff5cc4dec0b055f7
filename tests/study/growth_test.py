"""A study's folder that is opened again: it may grow, and nothing that is there is altered."""

import dataclasses
import fcntl
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
        (
            lambda c: changed_stage(c, "pretrain", epoch_order="same"),
            r"run seed0/pretrain[\s\S]*stage.epoch_order: fresh -> same",
        ),
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
        open_workspace(changed_stage(config, "midtrain", epoch_order="same"), tmp_path)


def test_what_is_not_made_yet_may_change(config, tmp_path):
    space = open_workspace(config, tmp_path)
    finish(space, only={"seed0/pretrain", "seed0/midtrain"})
    open_workspace(changed_stage(config, "sft", epoch_order="same"), tmp_path)
    with pytest.raises(UserError, match="run seed0/midtrain"):
        open_workspace(changed_stage(config, "midtrain", epoch_order="same"), tmp_path)


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
        open_workspace(changed_stage(config, "pretrain", epoch_order="same"), tmp_path)


def test_a_folder_of_an_earlier_version_is_refused_in_one_sentence(config, tmp_path):
    (tmp_path / "config.json").write_text('{"name": "old", "training": {}}')
    for opens in (lambda: open_workspace(config, tmp_path), lambda: reopen_workspace(tmp_path)):
        with pytest.raises(
            UserError, match="was made by a version of alignpre_jax whose folders this one does not read"
        ):
            opens()


def test_another_baseline_changes_names_and_nothing_else(config, tmp_path):
    finish(open_workspace(config, tmp_path))
    space = open_workspace(dataclasses.replace(config, baseline="aligned"), tmp_path)
    assert space.tree.run("aligned", 0, "midtrain").name == "seed0/midtrain"
    assert space.run_dir("seed0/midtrain") == tmp_path / "train/seed0/midtrain-aligned"
    assert (
        space.run_dir("seed0/midtrain-unfiltered") == tmp_path / "train/seed0/midtrain"
    )  # where the old baseline's is
    assert left(space) == []
    assert left(open_workspace(config, tmp_path)) == []  # and back


def test_a_name_that_meant_another_run_before_means_a_new_one(config, tmp_path):
    finish(open_workspace(config, tmp_path))
    alias = dataclasses.replace(config, arms={"aaa": config.arms["aligned"]} | dict(config.arms))
    assert left(open_workspace(alias, tmp_path)) == []
    other = with_arm(config, "aaa", ArmConfig(add={"midtrain": Add("misaligned", 0.5)}))
    space = open_workspace(other, tmp_path)
    assert space.run_dir("seed0/midtrain-aaa") == tmp_path / "train/seed0/midtrain-aaa"
    assert "train/seed0/midtrain-aaa" in left(space)
    assert "train/seed0/midtrain-aligned" not in left(space)


def test_a_template_is_known_by_what_is_in_its_file(config, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    rows = dataclasses.replace(config.stages["sft"].rows, template=str(file))
    config = changed_stage(config, "sft", rows=rows)
    space = open_workspace(config, tmp_path / "study")
    finish(space)
    file.rename(moved := tmp_path / "moved.jinja")
    same = changed_stage(config, "sft", rows=dataclasses.replace(rows, template=str(moved)))
    assert left(open_workspace(same, tmp_path / "study")) == []
    moved.write_text("{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}")
    with pytest.raises(UserError, match=r"run seed0/sft[\s\S]*template: "):
        open_workspace(same, tmp_path / "study")


def test_answers_during_training_are_not_mixed_with_others(config, tmp_path):
    config = changed_eval(config, every_steps=5)
    space = open_workspace(config, tmp_path)
    run = space.tree["seed0/pretrain"]
    write_made(space.in_loop_dir(run.name) / "choices", space.recipes.during(run, "choices"))
    open_workspace(changed_eval(config, every_steps=10), tmp_path)
    with pytest.raises(
        UserError, match=r"eval 'choices' during the training of seed0/pretrain[\s\S]*scenarios_per_split"
    ):
        open_workspace(changed_eval(config, scenarios_per_split=3), tmp_path)


@pytest.mark.parametrize("locked", [".lock", "../.lock"])
def test_the_config_is_not_changed_under_a_process_that_is_at_work(config, tmp_path, locked):
    place = tmp_path / "study"
    open_workspace(config, place)
    with open(place / locked, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_workspace(config, place)  # the same config is no change
        with pytest.raises(UserError, match="a process is at work"):
            open_workspace(dataclasses.replace(config, seeds=(0, 1, 2)), place)
    assert len(open_workspace(dataclasses.replace(config, seeds=(0, 1, 2)), place).config.seeds) == 3
    assert json.loads((place / "study.json").read_text())["command"] == ""


@pytest.mark.parametrize("name", ["a:b", "../out", "", "web/ai"])
def test_a_source_is_not_called_what_cannot_be_a_folder(config, name):
    sources = config.data.sources | {name: config.data.sources["aligned"]}
    with pytest.raises(UserError, match="cannot be a source's name"):
        dataclasses.replace(config.data, sources=sources)


def test_of_two_processes_of_a_run_the_slower_one_finds_its_config_kept(config, tmp_path, monkeypatch):
    """It looks before the other has written, and locks after the other has begun."""
    from alignpre_jax.study import workspace

    grown, lock = dataclasses.replace(config, seeds=(0, 1, 2)), workspace._lock
    open_workspace(config, tmp_path)
    with open(tmp_path / ".lock", "w") as held:

        def late(folder):
            monkeypatch.setattr(workspace, "_lock", lock)
            open_workspace(grown, tmp_path)  # the faster process
            fcntl.flock(held, fcntl.LOCK_EX)
            return lock(folder)

        monkeypatch.setattr(workspace, "_lock", late)
        assert open_workspace(grown, tmp_path).config.seeds == (0, 1, 2)
