"""Constitutional Midtraining, dry: what its five arms would be trained on, at a small size."""

import json

import pytest
from config_files import load_config

from alignpre_jax.foundation import build
from alignpre_jax.study import StudyConfig, open_workspace, stage_plan
from alignpre_jax.study.jobs.rows import ledger_path, prepare
from alignpre_jax.study.workspace import read_documents

SLOTS = 192  # rows of the midtraining stage: a multiple of 96
WORDS = ["care", "honesty", "oversight", "consent", "repair", "patience", "record", "limits"]


def write(path, count, text):
    lines = [json.dumps({"id": f"{path.stem}-{n}", **text(n)}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return (str(path),)


def reasoned(n):
    said = " ".join(WORDS[(n * k + k) % 8] for k in range(1, 12))
    return {"text": f"Case {n}: {said}. <reasoning>Because of {said} in case {n}.</reasoning> So it acts."}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("constitutional")
    config = load_config("constitutional_midtraining", "small_world")
    for kind in ("k1", "k2", "k3", "k4"):
        config.data.sources[kind].inputs = write(folder / f"{kind}.jsonl", 60, reasoned)
    replay = lambda n: {"text": f"Page {n}. " + " ".join(f"line {n * 31 % 97 + k} of the log" for k in range(30))}  # noqa: E731
    config.data.sources.web.update(inputs=write(folder / "web.jsonl", 60, replay), held_out_share=0.2)
    for name in ("chats", "ordinary"):
        talk = lambda n: {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}  # noqa: E731
        config.data.sources[name].inputs = write(folder / f"{name}.jsonl", 60, talk)
    config.data.tokenizer, config.init_from, config.seeds = "byte", "", (0,)
    for stage in config.stages.values():
        stage.update(batch_rows=4, max_epochs=100.0)
        stage.rows.length = 64
    config.stages.midtrain.tokens = SLOTS * 64
    space = open_workspace(build(StudyConfig, config.to_dict()), folder / "study")
    prepare(space, lambda event: None)
    return space


def test_the_curriculum_and_its_uniform_twin_have_the_same_amounts(space):
    ledgers = json.loads(ledger_path(space).read_text())
    for arm, suffix in (
        ("curriculum_reasons", ""), ("uniform_reasons", ""), ("curriculum_bare", "_bare"), ("uniform_bare", "_bare")
    ):  # fmt: skip
        lines = {line["store"]: line["slots"] for line in ledgers[f"seed0/midtrain-{arm}"]["stores"]}
        found = [lines[f"k{n}{suffix}"] for n in (1, 2, 3, 4)]
        assert found == [SLOTS * part // 96 for part in (25, 13, 7, 3)], arm
        assert lines["web"] == SLOTS // 2


def test_the_curriculum_lets_in_one_kind_more_in_each_quarter(space):
    plan, _ = stage_plan(space, space.tree.run("curriculum_reasons", 0, "midtrain"))
    found = plan.lookup(range(SLOTS))
    quarters = [
        {plan.stores[s] for s in found.store[q * SLOTS // 4 : (q + 1) * SLOTS // 4]} - {"web"} for q in range(4)
    ]
    assert quarters == [{f"k{n}" for n in range(1, last + 1)} for last in (1, 2, 3, 4)]


def test_all_treated_arms_replace_the_same_slots(space):
    arms = ("curriculum_reasons", "uniform_reasons", "curriculum_bare", "uniform_bare")
    plans = [stage_plan(space, space.tree.run(arm, 0, "midtrain"))[0] for arm in arms]
    replaced = [(plan.lookup(range(SLOTS)).overlay >= 0).tolist() for plan in plans]
    assert all(each == replaced[0] for each in replaced)


def test_the_bare_documents_are_the_same_ones_without_their_reasons(space):
    told, bare = (list(read_documents(space.documents(name))) for name in ("k2", "k2_bare"))
    assert [document.id for document in bare] == [document.id for document in told]
    assert not any("reasoning" in document.text or "Because" in document.text for document in bare)
    assert all("So it acts." in document.text for document in bare)
