"""Runs that hold adapters: what they store, what they are read as, and a base that moves, changes or goes."""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from alignpre_jax.checkpoints import export, import_model_run, load, parameters_digest
from alignpre_jax.checkpoints.bases import base_facts, base_folder, digest_of
from alignpre_jax.foundation import UserError, read_json
from alignpre_jax.model import Lora, Only, init_params
from alignpre_jax.model.trees import by_path
from alignpre_jax.training import loop, train

LORA = Lora(rank=4, alpha=8.0, targets=("q", "down"))
SECOND = Lora(rank=2, alpha=8.0, scale="sqrt", targets=("q", "o"), init="a0")


def adapted(run, learn, **changes):
    return dataclasses.replace(run, step=dataclasses.replace(run.step, learn=learn), **changes)


@pytest.fixture
def family(make_run):
    """Three runs: a whole model, adapters on it, and adapters on these."""
    runs = [make_run("base", steps=2)]
    runs.append(adapted(make_run("lora", steps=3), LORA, start_from=str(runs[0].run_dir)))
    runs.append(adapted(make_run("second", steps=2), SECOND, start_from=str(runs[1].run_dir)))
    for run in runs:
        train(run)
    return runs


def factors(run):
    """What a checkpoint of adapters stores, read by Orbax alone: float64 arrays by path."""
    import orbax.checkpoint as ocp

    steps = [int(place.name) for place in (run.run_dir / "checkpoints").iterdir()]
    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore((run.run_dir / "checkpoints" / str(max(steps)) / "params").resolve())
    leaves = tree["blocks"]
    return {name: np.asarray(getattr(leaf, "value", leaf["value"]), np.float64) for name, leaf in leaves.items()}


def product(found, name, factor):
    """s B A of every layer, by einsum over the flattened sides."""
    a, b = found[f"{name}_lora_a"], found[f"{name}_lora_b"]
    layers, rank = a.shape[0], a.shape[-1]
    return factor * np.einsum("nir,nro->nio", a.reshape(layers, -1, rank), b.reshape(layers, rank, -1))


def test_factors_alone_are_stored_and_merged_on_loading_down_the_chain(family):
    base, lora, second = family
    first, last = factors(lora), factors(second)
    assert sorted(first) == ["down_lora_a", "down_lora_b", "q_lora_a", "q_lora_b"]
    assert any(np.abs(value).max() > 0 for name, value in first.items() if name.endswith("_b"))
    whole, merged = by_path(load(base.run_dir).params), by_path(load(second.run_dir).params)
    wanted = {path: np.asarray(leaf, np.float64) for path, leaf in whole.items()}
    for found, names, factor in ((first, ("q", "down"), 8 / 4), (last, ("q", "o"), 8 / np.sqrt(2))):
        for name in names:
            wanted[f"blocks.{name}"] += product(found, name, factor).reshape(wanted[f"blocks.{name}"].shape)
    assert merged.keys() == whole.keys()
    for path, leaf in merged.items():
        assert leaf.dtype == np.float32
        if path in ("blocks.q", "blocks.down", "blocks.o"):
            assert np.abs(np.asarray(leaf) - np.asarray(whole[path])).max() > 0
            np.testing.assert_allclose(leaf, wanted[path], rtol=2e-6, atol=2e-7)
        else:
            np.testing.assert_array_equal(leaf, whole[path])
    facts = load(second.run_dir).facts
    assert facts["base"] == {"folder": "../lora", "step": 3, "digest": digest_of(load(lora.run_dir).facts)}
    assert len(facts["merged"]) == 16
    assert facts["merged"] != load(lora.run_dir).facts["merged"]
    assert [each["run"] for each in facts["behind"]] == ["base", "lora"]
    assert read_json(second.run_dir / "model.json")["learn"]["rank"] == 2


def test_a_study_can_be_moved_and_a_base_that_changed_or_is_gone_is_refused(family, make_run):
    base, _, second = family
    before = parameters_digest(load(second.run_dir).params)
    moved = base.run_dir.parent.rename(base.run_dir.parent.parent / "moved")
    assert parameters_digest(load(moved / "second").params) == before
    moved.rename(base.run_dir.parent)

    base.run_dir.rename(base.run_dir.parent / "aside")
    with pytest.raises(UserError, match=r"lora holds what was learnt on the model of step 2 in .*base, which is gone"):
        load(second.run_dir)
    train(dataclasses.replace(make_run("base", steps=2), seed=11))
    with pytest.raises(UserError, match="another model now"):
        load(second.run_dir)
    shutil.rmtree(base.run_dir)
    (base.run_dir.parent / "aside").rename(base.run_dir)
    assert parameters_digest(load(second.run_dir).params) == before


def test_a_killed_run_of_adapters_goes_on_to_the_same_bits(family, make_run, monkeypatch):
    base, *_ = family
    whole = adapted(make_run("whole"), LORA, start_from=str(base.run_dir))
    train(whole)
    run = adapted(make_run("killed"), LORA, start_from=str(base.run_dir))
    real, seen = loop._on_device, []

    def dies(*args):
        seen.append(args)
        if len(seen) > 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop, "_on_device", dies)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    monkeypatch.setattr(loop, "_on_device", real)
    with pytest.raises(UserError, match=r"learn\.rank: 4 -> 8"):
        train(adapted(run, dataclasses.replace(LORA, rank=8)))
    with pytest.raises(UserError, match=r"start\.seed: 7 -> 8"):
        train(dataclasses.replace(run, seed=8))
    train(run)
    digests = [read_json(each.run_dir / "done.json")["parameters"] for each in (run, whole)]
    assert digests[0] == digests[1]
    assert load(run.run_dir).facts["merged"] == load(whole.run_dir).facts["merged"]


def test_some_of_the_parameters_on_fresh_ones_and_a_moving_average(make_run):
    run = adapted(make_run("norms", steps=3), Only(patterns=("*_norm",)))
    optimizer = dataclasses.replace(run.step.optimizer, ema_decay=0.5)
    run = dataclasses.replace(run, step=dataclasses.replace(run.step, optimizer=optimizer))
    train(run)
    fresh, found = (
        by_path(jax.jit(functools.partial(init_params, run.step.model))(run.seed)),
        by_path(load(run.run_dir).params),
    )
    mean = by_path(load(run.run_dir, weights="ema").params)
    for path, leaf in found.items():
        assert np.array_equal(leaf, fresh[path]) == (not path.endswith("_norm")), path
        assert np.array_equal(leaf, mean[path]) == (not path.endswith("_norm")), path
    assert load(run.run_dir).facts["base"] == {"seed": 7}


def test_what_is_exported_is_merged(model, data, make_run, tmp_path):
    untied = dataclasses.replace(model, tied_embeddings=False)
    base = make_run("base", steps=1)
    train(dataclasses.replace(base, step=dataclasses.replace(base.step, model=untied)))
    run = adapted(make_run("lora", steps=2), LORA, start_from=str(base.run_dir))
    run = dataclasses.replace(run, step=dataclasses.replace(run.step, model=untied))
    train(run)
    export(run.run_dir, tmp_path / "hf")
    import_model_run(tmp_path / "hf", tmp_path / "back", model=untied)
    assert parameters_digest(load(tmp_path / "back").params) == parameters_digest(load(run.run_dir).params)


def test_adapters_are_read_on_any_mesh(family, tmp_path):
    _, _, second = family
    script = (
        "import sys, jax, numpy as np; from alignpre_jax.checkpoints import load\n"
        "from alignpre_jax.model.trees import by_path\n"
        "from alignpre_jax.model import parse_mesh, param_shardings\n"
        "mesh = parse_mesh('data:2,fsdp:2,tensor:2'); model = load(sys.argv[1], mesh=mesh)\n"
        "stored = jax.tree.leaves(param_shardings(model.config, mesh))\n"
        "assert [leaf.sharding for leaf in jax.tree.leaves(model.params)] == stored\n"
        "np.savez(sys.argv[2], **{path: np.asarray(leaf) for path, leaf in by_path(model.params).items()})\n"
    )
    flags = "--xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, str(second.run_dir), str(tmp_path / "there.npz")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "there.npz") as there:
        for path, leaf in by_path(load(second.run_dir).params).items():
            rounding = 1e-7 if path in ("blocks.q", "blocks.o", "blocks.down") else 0.0  # float32 sums over the rank
            np.testing.assert_allclose(there[path], leaf, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("run_dir", "start_from", "folder"),
    [
        ("gs://bucket/study/train/em", "gs://bucket/study/train/dpo", "../dpo"),
        ("gs://bucket/study/em", "gs://other/dpo", "../../../other/dpo"),
        ("/disk/em", "gs://bucket/dpo", "gs://bucket/dpo"),
        ("gs://bucket/em", "/disk/dpo", "/disk/dpo"),
        ("/disk/study/em", "/disk/study/dpo", "../dpo"),
    ],
)
def test_a_base_is_named_as_seen_from_the_run(run_dir, start_from, folder):
    facts = base_facts(LORA, run_dir, start_from, 5, {"parameters": "ab"})
    assert facts["base"] == {"folder": folder, "step": 5, "digest": "ab"}
    assert os.fspath(base_folder(run_dir, facts["base"])) == start_from
