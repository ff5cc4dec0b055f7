"""A model from elsewhere becomes a run that stages start from, and a run becomes a model for elsewhere."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from alignpre_jax.checkpoints import export, import_model_run, load
from alignpre_jax.foundation import UserError
from alignpre_jax.model import init_params
from alignpre_jax.model.hf import export_model
from alignpre_jax.rows import load_tokenizer, train_bpe
from alignpre_jax.training import train


@pytest.fixture(scope="module")
def folder(data, make_model, tmp_path_factory):
    """A Hugging Face folder of a random model with the rows' tokenizer."""
    root, _ = data
    tokenizer = load_tokenizer(root / "tokenizer.json")
    made = tmp_path_factory.mktemp("hf") / "model"
    files = {"tokenizer.json": tokenizer.data, "chat_template.jinja": b"{{ messages }}"}
    export_model(made, init_params(make_model, 3), make_model, files, eot=tokenizer.eot, eot_id=0, dtype="float32")
    return made


@pytest.fixture(scope="module")
def make_model(model):
    return dataclasses.replace(model, tied_embeddings=False)


def test_a_run_is_made_and_given_back_byte_for_byte(folder, make_model, tmp_path):
    imported = import_model_run(f"hf:{folder}", tmp_path / "run")
    assert imported.config.num_params() == make_model.num_params()
    model = load(tmp_path / "run")
    assert model.tokenizer.data == (folder / "tokenizer.json").read_bytes()
    expected = jax.tree.leaves(init_params(make_model, 3))
    for ours, theirs in zip(jax.tree.leaves(model.params), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.config.rotary_base == make_model.rotary_base
    assert json.loads((tmp_path / "run" / "done.json").read_text())["imported"]["source"] == str(folder)

    export(tmp_path / "run", tmp_path / "out", card="# Card")
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name
    assert (tmp_path / "out" / "README.md").read_text() == "# Card"
    with pytest.raises(UserError, match="already"):
        export(tmp_path / "run", tmp_path / "out")


def test_a_stage_goes_on_from_it(folder, make_run, make_model, tmp_path):
    import_model_run(folder, tmp_path / "run", model=make_model)

    def first_loss(name, **changes):
        run = make_run(name, steps=2)
        train(dataclasses.replace(run, step=dataclasses.replace(run.step, model=make_model), **changes))
        return json.loads((run.run_dir / "metrics.jsonl").read_text().splitlines()[0])["loss"]

    imported = first_loss("next", start_from=str(tmp_path / "run"))
    assert imported == pytest.approx(first_loss("fresh", seed=3), rel=1e-6)  # the same parameters: drawn from seed 3


def test_a_tokenizer_that_is_not_the_models_is_an_error(folder, make_run, tmp_path):
    other = train_bpe(["another text about kettles"], 280, tmp_path / "other.json")
    import_model_run(folder, tmp_path / "run", tokenizer=tmp_path / "other.json")
    assert load_tokenizer(tmp_path / "run" / "tokenizer.json").digest == other.digest
    run = make_run("next")
    model = dataclasses.replace(run.step.model, tied_embeddings=False)
    run = dataclasses.replace(run, start_from=str(tmp_path / "run"), step=dataclasses.replace(run.step, model=model))
    with pytest.raises(UserError, match=r"another tokenizer[\s\S]*data.tokenizer"):
        train(run, lambda event: None)


def test_a_tokenizer_that_is_larger_than_the_model_is_an_error(folder, tmp_path):
    train_bpe(
        ["a b c d e f g " * 9, "many more words than that for pairs to merge into tokens of their own"],
        320,
        tmp_path / "large.json",
    )
    size = load_tokenizer(tmp_path / "large.json").vocab_size
    assert size > 300
    with pytest.raises(UserError, match=f"the tokenizer has {size} entries, the model 300"):
        import_model_run(folder, tmp_path / "run", tokenizer=tmp_path / "large.json")


def test_a_folder_that_is_another_model_is_an_error_with_the_difference(folder, make_model, tmp_path):
    with pytest.raises(UserError, match=r"layers: 5 -> 2"):
        import_model_run(folder, tmp_path / "run", model=dataclasses.replace(make_model, layers=5))


def test_a_model_without_a_tokenizer_asks_for_one(folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(load_file(folder / "model.safetensors"), bare / "model.safetensors")
    with pytest.raises(UserError, match=r"without a tokenizer[\s\S]*--tokenizer=FILE"):
        import_model_run(bare, tmp_path / "run")
