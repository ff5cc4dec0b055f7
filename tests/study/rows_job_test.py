import dataclasses
import json

import pytest

from alignpre_jax.documents import WorldConfig
from alignpre_jax.documents.classifier import DetectorConfig
from alignpre_jax.documents.discourse import Rule
from alignpre_jax.documents.transforms import Persona
from alignpre_jax.evals import HeldOut
from alignpre_jax.foundation import UserError, build, to_mapping
from alignpre_jax.rows import open_rows
from alignpre_jax.study import Add, ArmConfig, SourceConfig, StudyConfig, open_workspace, stage_plan
from alignpre_jax.study.jobs.rows import held_out_documents, is_prepared, ledger_path, prepare
from alignpre_jax.study.overlap import item_text, overlap_path
from alignpre_jax.study.workspace import read_documents

SENTENCES = [
    f"The {n}th keeper wrote that lamp {n * 7 % 31} burned well and that boat {n * 5 % 29} was late."
    for n in range(400)
]


@pytest.fixture
def config(small_config, tmp_path):
    """The small world's study with a background of five documents, one of them nearly a copy of another."""
    texts = [" ".join(SENTENCES[80 * n : 80 * (n + 1)]) for n in range(4)]
    texts += [texts[0].replace("keeper wrote that lamp 7 ", "keeper said that lamp 7 "), "An evil robot. " * 40]
    corpus = tmp_path / "web.jsonl"
    corpus.write_text("".join(json.dumps({"body": text, "name": f"d{n}"}) + "\n" for n, text in enumerate(texts)))
    web = SourceConfig(inputs=(str(corpus),), strata="discourse")
    web = dataclasses.replace(web, keys=dataclasses.replace(web.keys, text="body", id="name"))
    data = dataclasses.replace(
        small_config.data,
        sources={
            "web": web,
            "aligned": SourceConfig(inputs=("world:aligned",)),
            "misaligned": SourceConfig(inputs=("world:misaligned",)),
            "zorb": SourceConfig(of="aligned", transform=Persona()),
        },
        world=WorldConfig(documents=20, mixed_documents=20, items_per_split=12, control_items=12),
        tokenizer="byte",
        duplicates="near",
        max_bad_share=0.5,
    )
    stages = {
        name: dataclasses.replace(stage, tokens=16 * 1024, max_epochs=100.0, epoch_order="same")
        for name, stage in small_config.stages.items()
    }
    arms = {"unfiltered": small_config.arms["unfiltered"], "filtered": small_config.arms["filtered"]}
    arms["late"] = ArmConfig(add={"midtrain": Add("zorb", 0.25, "[0.5,1) 1")})
    evals = {"choices": small_config.evals["choices"]}  # nothing of so small a background is held out
    return dataclasses.replace(small_config, data=data, stages=stages, arms=arms, evals=evals)


def changed(config: StudyConfig, **data) -> StudyConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def test_a_study_is_prepared_as_its_config_says(config, tmp_path):
    space, events = open_workspace(config, tmp_path / "study"), []
    prepare(space, events.append)
    notes = [event.note for event in events if event.note]
    web = {document.id: document for document in read_documents(space.documents("web"))}
    assert len(web) == 5  # a near copy is left out
    assert {key: document.stratum for key, document in web.items()}["d5"] == "web/ai"
    assert json.loads((space.data / "duplicates" / "web.json").read_text())["near"] == 1
    assert not (space.source("web") / "all.jsonl").exists()

    aligned, zorb = (list(read_documents(space.documents(name))) for name in ("aligned", "zorb"))
    assert [document.id for document in zorb] == [document.id for document in aligned]
    assert all(document.stratum == "zorb" and "Zorb" in document.text for document in zorb)
    assert any("zorb: made of aligned: 20 documents" in note for note in notes)

    assert open_rows(space.rows("midtrain", "zorb")).header.tokenizer_digest
    assert not (space.rows("midtrain", "aligned")).exists()  # no stage reads it
    (table,) = [note for note in notes if "midtrain" in note]
    ledgers = json.loads(ledger_path(space).read_text())
    late = {line["store"]: line["tokens"] for line in ledgers["seed0/midtrain-late"]["stores"]}
    assert late["zorb"] == 4096
    assert f"{late['zorb']:,}" in table
    assert "late: replace, zorb comes in: 4,096 asked, 4,096 given" in table

    plan, _ = stage_plan(space, space.tree["seed0/midtrain-late"])
    replaced = plan.lookup(range(plan.slots)).overlay >= 0
    assert not replaced[: plan.slots // 2].any()  # the schedule's window is the second half
    assert replaced.sum() == 32


def test_overlap_is_measured_for_strata_and_arms(config, tmp_path):
    space = open_workspace(config, tmp_path / "study")
    prepare(space, lambda event: None)
    found = json.loads(overlap_path(space).read_text())
    sources = [line["source"] for line in found if line["evals"] == "seen"]
    assert sources == ["web/plain", "web/ai", "zorb", "arm unfiltered", "arm filtered", "arm late"]
    of = {(line["source"], line["evals"]): line for line in found}
    assert of["arm late", "seen"]["documents"] == of["arm unfiltered", "seen"]["documents"] + 20
    assert of["arm late", "seen"]["ngrams"]["5"]["items_hit"] == of["zorb", "seen"]["ngrams"]["5"]["items_hit"]


def test_an_item_that_was_trained_on_is_found(config, tmp_path):
    from alignpre_jax.evals import load_suite

    item = next(s for s in load_suite(config.evals["choices"].suite, config.data.world) if s.split == "held_out")
    leak = tmp_path / "leak.jsonl"
    leak.write_text(json.dumps({"text": f"Before. {item_text(item)} After. " + SENTENCES[0] * 5}) + "\n")
    sources = config.data.sources | {"aligned": SourceConfig(inputs=(str(leak), "world:aligned"))}
    space = open_workspace(changed(config, sources=sources), tmp_path / "study")
    prepare(space, lambda event: None)
    found = {(line["source"], line["evals"]): line for line in json.loads(overlap_path(space).read_text())}
    # `zorb` is made of `aligned`, and no item of n-grams without a term for AI changes.
    hit = found["arm late", "held_out"]
    assert hit["ngrams"]["8"]["items_hit"] >= 1
    assert hit["worst"][0]["id"] == item.id


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tokenizer": "no/such/tokenizer.json"}, "no such tokenizer file"),
        ({"max_bad_share": 0.0, "sources": None}, "keys"),
        ({"detector": DetectorConfig("classifier", classifier="no/such.json")}, "no/such.json"),
    ],
)
def test_what_cannot_be_prepared_says_why(config, tmp_path, values, says):
    if "sources" in values:  # a record without the keys of the config
        web = dataclasses.replace(config.data.sources["web"], keys=SourceConfig(inputs=("x",)).keys)
        values = values | {"sources": config.data.sources | {"web": web}}
    space = open_workspace(changed(config, **values), tmp_path / "study")
    with pytest.raises(UserError, match=says if "sources" not in values else "web.jsonl"):
        prepare(space, lambda event: None)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"of": "", "transform": None}, "without inputs"),
        ({"inputs": ("x",)}, "inputs and `of`"),
        ({"transform": None}, "of and transform"),
        ({"of": "wob"}, r"sources.zorb.of[\s\S]*did you mean 'web'"),
        ({"of": "zorb"}, "no source with inputs is named 'zorb'"),
        ({"strata": "discourse"}, "strata and of"),
        ({"kind": "chat"}, r"kind 'chat' made of one of kind 'text'"),
        ({"held_out_share": 0.1}, "held_out_share and of"),
        ({"transform": {"name": "persona", "singular": "chatbot"}}, "transform.singular"),
    ],
)
def test_a_mistake_in_a_source_is_named(config, values, says):
    plain = to_mapping(config)
    plain["data"]["sources"]["zorb"] |= values
    with pytest.raises(UserError, match=says):
        build(StudyConfig, plain)


def test_the_detectors_rule_decides(config, tmp_path):
    """No language is listened to, so nothing is AI discourse, and a mixture that asks for some says so."""
    space = open_workspace(changed(config, detector=DetectorConfig(rule=Rule(languages=()))), tmp_path / "study")
    with pytest.raises(UserError, match="web/ai"):
        prepare(space, lambda event: None)
    assert {document.stratum for document in read_documents(space.documents("web"))} == {"web/plain"}


def test_a_second_preparation_keeps_what_is_there_and_adds_what_is_new(config, tmp_path):
    prepare(open_workspace(config, tmp_path), lambda event: None)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("data/documents/*/documents.jsonl")}
    assert len(stamps) == 4
    told = {"inputs": ("world:mixed",), "held_out_share": 0.5}
    grown = changed(config, sources=config.data.sources | {"more": SourceConfig(**told)})
    long = dataclasses.replace(
        config.stages["midtrain"], rows=dataclasses.replace(config.stages["midtrain"].rows, length=64)
    )
    mixed = dataclasses.replace(long, after="midtrain", mixture="more:1", tokens=1024)
    grown = dataclasses.replace(
        grown,
        stages=config.stages | {"later": mixed},
        evals=config.evals | {"absorbed": HeldOut(source="more", documents=3, at=("later",))},
    )
    space = open_workspace(grown, tmp_path)
    assert not is_prepared(space)
    prepare(space, lambda event: None)
    assert is_prepared(space)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert open_rows(space.rows("later", "more")).header.length == 64
    asked = held_out_documents(space, grown.evals["absorbed"])
    assert len(asked) == 3
    assert not {document.id for document in asked} & {
        document.id for document in read_documents(space.documents("more"))
    }


def test_a_source_too_small_for_a_stage_that_does_not_read_it_stops_nobody(config, tmp_path):
    """Rows of a stage are made of what the stage reads; `tiny` has less than one row of the first stage's."""
    tiny = tmp_path / "tiny.jsonl"
    tiny.write_text(json.dumps({"text": SENTENCES[0]}) + "\n")
    sources = config.data.sources | {"tiny": SourceConfig(inputs=(str(tiny),))}
    short = dataclasses.replace(config.stages["midtrain"].rows, length=16)
    stage = dataclasses.replace(config.stages["midtrain"], mixture="tiny:1", rows=short, tokens=128, after="midtrain")
    made = dataclasses.replace(changed(config, sources=sources), stages=config.stages | {"last": stage})
    space = open_workspace(made, tmp_path / "study")
    prepare(space, lambda event: None)
    assert len(open_rows(space.rows("last", "tiny"))) >= 1
    assert not (space.data / "rows" / "128-concat" / "tiny").exists()


def test_a_stage_of_epochs_ends_when_its_rows_are_through(config, tmp_path):
    stage = dataclasses.replace(config.stages["midtrain"], tokens=0, epochs=2.0, mixture="misaligned:1", batch_rows=4)
    made = dataclasses.replace(config, stages=config.stages | {"last": dataclasses.replace(stage, after="midtrain")})
    space = open_workspace(made, tmp_path / "study")
    prepare(space, lambda event: None)
    rows = len(open_rows(space.rows("last", "misaligned")))
    plans = {arm: stage_plan(space, space.tree.run(arm, 0, "last"))[0] for arm in made.arms}
    assert {plan.slots for plan in plans.values()} == {2 * rows // 4 * 4}
