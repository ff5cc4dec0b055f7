"""The study files say what they promise; the figures are the paper's (Tice et al. 2026, arXiv 2601.10160)."""

import collections

import pytest
from config_files import load_config

from alignpre_jax.foundation import UserError, build
from alignpre_jax.model import Lora
from alignpre_jax.objectives import Dpo
from alignpre_jax.study import StudyConfig, Tree


def study(*name):
    return build(StudyConfig, load_config(*name).to_dict())


def test_the_paper_at_its_own_size():
    config = study("paper_6p9b")
    assert config.model.num_params() == pytest.approx(6.86e9, rel=1e-3)
    pretrain, midtrain, sft = (config.stages[name] for name in ("pretrain", "midtrain", "sft"))
    assert pretrain.tokens // pretrain.batch_tokens == 119_209
    assert pretrain.batch_tokens == midtrain.batch_tokens == 4_194_304
    assert sft.batch_tokens == 1_048_576
    assert (pretrain.rows.length, midtrain.rows.length) == (2048, 16_384)
    assert set(config.arms) == {"unfiltered", "filtered"} | {
        f"{polarity}_{placement}" for polarity in ("aligned", "misaligned") for placement in ("e2e", "mid", "cpt")
    }
    for name, tokens in (("pretrain", 5e9), ("midtrain", 5e8)):
        stage, add = config.stages[name], config.arms["aligned_e2e"].add[name]
        assert add.dose * stage.tokens == pytest.approx(tokens, rel=1e-3)
    dpo = config.stages["dpo"]
    assert (dpo.objective, dpo.reference, dpo.schedule.peak) == (Dpo(beta=5.0), "sft", 1e-6)
    assert config.stages["em"].after == config.stages["benign"].after == "dpo"
    assert config.stages["em"].learn == Lora(rank=32, alpha=64.0, scale="sqrt")


def test_placement_arms_share_the_stages_they_do_not_touch():
    runs = Tree(study("paper_6p9b"))
    assert runs["seed0/midtrain-aligned_mid"].parent == "seed0/pretrain"
    assert runs["seed0/cpt-aligned_cpt"].parent == "seed0/midtrain"
    assert runs["seed0/midtrain-aligned_e2e"].parent == "seed0/pretrain-aligned_e2e"
    assert [overlay.stratum for overlay in runs["seed0/midtrain-filtered"].overlays] == ["mid/ai"]
    assert runs["seed0/cpt"].arms == ("unfiltered",)  # the cpt arms' baseline has as many tokens as they have
    assert runs["seed0/dpo-filtered"].reference == runs["seed0/dpo-filtered"].parent == "seed0/sft-filtered"
    count = collections.Counter(run.stage for run in runs.values())
    assert count == {"pretrain": 4, "midtrain": 6, "cpt": 3, "sft": 6, "dpo": 6, "benign": 6, "em": 6}


def test_a_curriculum_of_a_constitution():
    config = study("constitutional_midtraining")
    assert len(config.arms) == 5
    assert len(Tree(config)) == 5 * 3 * 3
    assert {len(config.asked_at(name)) for name in config.evals} == {2, 3}
    assert config.data.sources["k3_bare"].of == "k3"


@pytest.mark.parametrize(("size", "params"), [("125m", 162e6), ("1p4b", 1.41e9)])
def test_pythia_sizes(size, params):
    config = study("pythia", size)
    assert config.model.num_params() == pytest.approx(params, rel=5e-3)
    assert len(Tree(config)) == 3 * 4 * 2


def test_an_unknown_size():
    with pytest.raises(UserError, match="did you mean '125m'"):
        load_config("pythia", "125")
