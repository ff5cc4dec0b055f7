import pytest
from config_files import load_config

from alignpre_jax.foundation import UserError, build, to_mapping
from alignpre_jax.study import StudyConfig


def changed(plain, path, value):
    """A copy of a nested mapping with one value replaced."""
    key, _, rest = path.partition(".")
    return plain | {key: changed(plain[key], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("arms.aligned.dose", 1.5, r"a dose of 1.5 is not a share\n  where: config.arms.aligned.dose"),
        ("arms.aligned.dose", -0.1, r"config.arms.aligned.dose"),
        ("arms.aligned.source", "alinged", r"no stratum is named 'alinged'[\s\S]*did you mean 'aligned'"),
        ("arms.aligned.placement", ("posttrain",), r"no stage is named 'posttrain'"),
        ("arms.aligned.stages", ("pretrain",), r"config.arms.aligned.placement and arms.aligned.stages"),
        ("arms.filtered.refill", (), r"1 strata to remove and 0 to refill"),
        ("arms.filtered.remove", ("aligned",), r"has none of the strata"),
        ("stages.midtrain.mixture", "web/plain:0.9,web/a:0.1", r"did you mean 'web/ai'"),
        ("stages.midtrain.mixture", "web/plain:0.9", r"add up to 0.9[\s\S]*config.stages.midtrain.mixture"),
        ("stages.midtrain.tokens", 5, r"less than one batch"),
        ("stages.midtrain.row_length", 512, r"stages.midtrain.row_length and model.max_length"),
        ("baseline", "unfilterd", r"did you mean 'unfiltered'"),
        ("seeds", (0, 0), r"config.seeds"),
        ("data.background", "wob", r"did you mean 'web'"),
        ("data.rows_url", "gs://bucket", r"not a folder in a bucket[\s\S]*config.data.rows_url"),
        ("model.kv_heads", 3, r"config.model.kv_heads"),
        ("stages.midtrain.schedule.peak", 0.0, r"config.stages.midtrain.schedule.peak"),
    ],
)
def test_a_mistake_names_the_key_and_the_way_out(small_config, path, value, says):
    with pytest.raises(UserError, match=says):
        build(StudyConfig, changed(to_mapping(small_config), path, value))


def test_the_plain_form_is_the_whole_config(small_config):
    assert build(StudyConfig, to_mapping(small_config)) == small_config


def test_every_key_can_be_set(small_config):
    """The config file spells out every field of the dataclasses, so the command line can reach it."""
    file = load_config("small_world").to_dict()
    assert build(StudyConfig, file) == small_config
    assert to_mapping(small_config) == file
