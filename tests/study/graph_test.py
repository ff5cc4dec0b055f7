import dataclasses

import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.mixture import Remove, Replace
from alignpre_jax.study import ArmConfig, final_run, jobs, stage_runs, with_needs

BOTH = ("pretrain", "midtrain")


def test_arms_share_what_they_agree_on(small_config):
    runs = stage_runs(small_config)
    assert [name for name in runs if name.startswith("seed0")] == [
        "seed0/pretrain",
        "seed0/midtrain",
        "seed0/midtrain-aligned",
        "seed0/midtrain-aligned_zero",
        "seed0/midtrain-filtered",
        "seed0/midtrain-misaligned",
    ]
    assert runs["seed0/pretrain"].arms == tuple(small_config.arms)
    assert runs["seed0/midtrain"].arms == ("unfiltered",)
    assert {run.parent for run in runs.values() if run.stage == "midtrain" and run.seed == 0} == {"seed0/pretrain"}


def test_an_arm_with_a_dose_in_pretraining_has_runs_of_its_own(small_config):
    arms = {
        "unfiltered": ArmConfig(BOTH),
        "mid": ArmConfig(BOTH, placement=("midtrain",), source="aligned", dose=0.1),
        "e2e": ArmConfig(BOTH, placement=BOTH, source="aligned", dose=0.1),
    }
    runs = stage_runs(dataclasses.replace(small_config, arms=arms, seeds=(0,)))
    assert {name: run.parent for name, run in runs.items()} == {
        "seed0/pretrain": "",
        "seed0/midtrain": "seed0/pretrain",
        "seed0/midtrain-mid": "seed0/pretrain",
        "seed0/pretrain-e2e": "",
        "seed0/midtrain-e2e": "seed0/pretrain-e2e",
    }


def test_arms_of_one_study_prefer_the_same_slots(small_config):
    runs = stage_runs(small_config)
    aligned, misaligned = (runs[f"seed0/midtrain-{arm}"].overlays[0] for arm in ("aligned", "misaligned"))
    assert isinstance(aligned, Replace)
    assert dataclasses.replace(aligned, mixture="misaligned") == misaligned
    assert isinstance(runs["seed0/midtrain-filtered"].overlays[0], Remove)
    assert aligned.seed != runs["seed1/midtrain-aligned"].overlays[0].seed


def test_jobs_follow_what_they_need(small_config):
    graph = jobs(small_config)
    seen = set()
    for job in graph.values():
        assert set(job.needs) <= seen
        seen.add(job.name)
    wanted = with_needs(graph, ["eval/seed1/midtrain-aligned"])
    assert list(wanted) == [
        "prepare",
        "train/seed1/pretrain",
        "train/seed1/midtrain-aligned",
        "eval/seed1/midtrain-aligned",
    ]


def test_an_unknown_arm_or_seed_is_named(small_config):
    runs = stage_runs(small_config)
    with pytest.raises(UserError, match=r"no arm is named 'alinged'[\s\S]*did you mean 'aligned'"):
        final_run(small_config, runs, "alinged", 0)
    with pytest.raises(UserError, match="no seed 9"):
        final_run(small_config, runs, "aligned", 9)
