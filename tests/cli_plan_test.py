"""What `alignpre plan` is told of stages that are measured in epochs; nothing is compiled here."""

import argparse

import pytest
from config_files import load_config

from alignpre_jax.cli import tpu
from alignpre_jax.foundation import UserError, build
from alignpre_jax.study import StudyConfig


@pytest.fixture(scope="module")
def paper():
    return build(StudyConfig, load_config("paper_6p9b").to_dict())


def given(**values):
    return argparse.Namespace(**({"workdir": "", "tokens": ""} | values))


def test_the_length_of_a_stage_of_epochs_has_to_be_told(paper):
    with pytest.raises(UserError, match=r"'em' is 1 epochs long[\s\S]*--tokens=em:COUNT"):
        tpu._stage_works(paper, "", tpu._lengths(paper, given(tokens="sft:4_000_000_000")))
    works = tpu._stage_works(paper, "", tpu._lengths(paper, given(tokens="sft:4_000_000_000,em:4000000")))
    assert {work.name: (work.steps, work.runs) for work in works} == {
        "pretrain": (119_209, 4), "midtrain": (11_920, 6), "cpt": (238, 3),
        "sft": (3814, 6), "benign": (694, 6), "em": (122, 6),
    }  # fmt: skip
    assert [work.name for work in tpu._stage_works(paper, "midtrain", {})] == ["midtrain"]


@pytest.mark.parametrize(("tokens", "says"), [("stf:1", "did you mean 'sft'"), ("sft:many", "is not STAGE:COUNT")])
def test_a_length_that_is_none(paper, tokens, says):
    with pytest.raises(UserError, match=says):
        tpu._lengths(paper, given(tokens=tokens))
