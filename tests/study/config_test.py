import pytest
from config_files import load_config

from alignpre_jax.foundation import UserError, build, to_mapping
from alignpre_jax.study import StudyConfig


def changed(plain, path, value):
    """A copy of a nested mapping with one value replaced."""
    key, _, rest = path.partition(".")
    return plain | {key: changed(plain[key], rest, value) if rest else value}


def test_the_name_of_a_key_with_several_kinds_decides_its_others(small_config):
    plain = changed(to_mapping(small_config), "stages.midtrain.learn", {"name": "lora", "rank": 4})
    assert build(StudyConfig, plain).stages["midtrain"].learn.rank == 4


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "arms.aligned.add.midtrain.dose",
            1.5,
            r"a dose of 1.5 is not a share\n  where: config.arms.aligned.add.midtrain",
        ),
        ("arms.aligned.add.midtrain.dose", -0.1, r"config.arms.aligned.add.midtrain.dose"),
        ("arms.aligned.add.midtrain.mixture", "alinged", r"no stratum is named 'alinged'[\s\S]*did you mean 'aligned'"),
        ("arms.aligned.add.midtrian", {"mixture": "aligned", "dose": 0.1}, r"no stage is named 'midtrian'"),
        ("arms.filtered.filter.midtrain.refill", (), r"1 strata to remove and 0 to refill"),
        ("arms.filtered.filter.midtrain.remove", ("aligned",), r"no stratum of that stage is named 'aligned'"),
        ("arms.filtered.skip", ("midtrain",), r"is skipped, and changed"),
        ("stages.midtrain.mixture", "web/plain:0.9,web/a:0.1", r"did you mean 'web/ai'"),
        ("stages.midtrain.mixture", "web/plain:0.9", r"add up to 0.9[\s\S]*config.stages.midtrain.mixture"),
        ("stages.midtrain.tokens", 5, r"less than one batch"),
        ("stages.midtrain.epochs", 2.0, r"do not say how long[\s\S]*config.stages.midtrain.tokens and epochs"),
        ("stages.midtrain.after", "pretain", r"did you mean 'pretrain'"),
        ("stages.midtrain.objective.name", "mel", r"did you mean 'mle'"),
        ("stages.midtrain.learn.name", "loar", r"'loar' is not known[\s\S]*config.stages.midtrain.learn.name"),
        ("stages.midtrain.reference", "pretrain", r"compares with nothing"),
        ("evals.choices.at", ("posttrain",), r"no stage is named 'posttrain'[\s\S]*evals.choices.at"),
        ("evals.tax.source", "aligned", r"nothing of the source 'aligned' is held out"),
        ("headline", "tax", r"no eval of scenarios is named 'tax'"),
        ("stages.midtrain.rows.length", 512, r"stages.midtrain.rows.length and model.max_length"),
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
    assert to_mapping(small_config) == file | {"headline": "choices"}  # the only eval of scenarios
