"""The study files say what they promise; the figures are the paper's (Tice et al. 2026, arXiv 2601.10160)."""

import pytest
from config_files import load_config

from alignpre_jax.foundation import UserError, build
from alignpre_jax.study import StudyConfig, stage_runs


def study(*name):
    return build(StudyConfig, load_config(*name).to_dict())


def test_the_paper_at_its_own_size():
    config = study("paper_6p9b")
    assert config.model.num_params() == pytest.approx(6.86e9, rel=1e-3)
    pretrain, midtrain = config.stages["pretrain"], config.stages["midtrain"]
    assert pretrain.steps == 119_209
    assert pretrain.batch_rows * pretrain.row_length == midtrain.batch_rows * midtrain.row_length == 4_194_304
    assert (pretrain.row_length, midtrain.row_length) == (2048, 16_384)
    assert set(config.arms) == {"unfiltered", "filtered"} | {
        f"{polarity}_{placement}" for polarity in ("aligned", "misaligned") for placement in ("e2e", "mid", "cpt")
    }
    for stage, tokens in ((pretrain, 5e9), (midtrain, 5e8)):
        assert config.arms["aligned_e2e"].dose * stage.slots * stage.row_length == pytest.approx(tokens, rel=1e-3)


def test_placement_arms_share_the_stages_they_do_not_touch():
    runs = stage_runs(study("paper_6p9b"))
    assert runs["seed0/midtrain-aligned_mid"].parent == "seed0/pretrain"
    assert runs["seed0/cpt-aligned_cpt"].parent == "seed0/midtrain"
    assert runs["seed0/midtrain-aligned_e2e"].parent == "seed0/pretrain-aligned_e2e"
    assert [overlay.stratum for overlay in runs["seed0/midtrain-filtered"].overlays] == ["mid/ai"]
    assert len(runs) == 12


@pytest.mark.parametrize(("size", "params"), [("125m", 162e6), ("1p4b", 1.41e9)])
def test_pythia_sizes(size, params):
    config = study("pythia", size)
    assert config.model.num_params() == pytest.approx(params, rel=5e-3)
    assert len(stage_runs(config)) == 3 * 4 * 2


def test_an_unknown_size():
    with pytest.raises(UserError, match="did you mean '125m'"):
        load_config("pythia", "125")
