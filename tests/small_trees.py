"""Studies as trees, for tests: small ones by hand, and any that hypothesis thinks of."""

import dataclasses

from hypothesis import strategies as st

from alignpre_jax.evals import Scenarios
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study import Add, ArmConfig, Filter, StageConfig

ROWS = RowsConfig(length=128)
MIXTURE = "web/plain:0.9,web/ai:0.1"


def stage(after="", **values) -> StageConfig:
    return StageConfig(**{"mixture": MIXTURE, "tokens": 10_240, "batch_rows": 8, "rows": ROWS} | values, after=after)


def persistence(config, **changes):
    """pretrain -> midtrain -> (sft -> tamper, flood), in four arms."""
    stages = {
        "pretrain": stage(),
        "midtrain": stage("pretrain"),
        "sft": stage("midtrain"),
        "tamper": stage("sft"),
        "flood": stage("midtrain"),
    }
    arms = {
        "aligned": ArmConfig(add={"midtrain": Add("aligned", 0.5)}),
        "aligned_zero": ArmConfig(add={"midtrain": Add("aligned", 0.0)}),
        "filtered": ArmConfig(filter={"midtrain": Filter(("web/ai",), ("web/plain",))}),
        "late": ArmConfig(add={"flood": Add("misaligned", 0.25)}, skip=("sft", "tamper")),
        "unfiltered": ArmConfig(),
    }
    made = {"stages": stages, "arms": arms, "evals": {"choices": Scenarios(suite="small_world")}, "seeds": (0, 1)}
    return dataclasses.replace(config, **made | changes)


@st.composite
def studies(draw, config):
    """A config with any tree of up to six stages and up to five arms."""
    names = ["a", "b", "c", "d", "e", "f"][: draw(st.integers(1, 6))]
    stages = {name: stage(draw(st.sampled_from(["", *names[:n]]))) for n, name in enumerate(names)}
    skipped_by_all = tuple(draw(st.sets(st.sampled_from(names), max_size=len(names) - 1)))
    doses = st.sampled_from([0.0, 0.125, 0.5])
    adds = st.builds(Add, st.sampled_from(["aligned", "misaligned"]), doses)
    arms = {"unfiltered": ArmConfig(skip=skipped_by_all)}
    for name in ["v", "w", "x", "y"][: draw(st.integers(0, 4))]:
        more = draw(st.sets(st.sampled_from(names), max_size=2))
        skip = tuple(sorted({*skipped_by_all, *more}))
        had = [each for each in names if each not in skip]
        if not had:
            continue
        changed = draw(st.sets(st.sampled_from(had), max_size=2))
        filtered = draw(st.sets(st.sampled_from(had), max_size=1))
        arms[name] = ArmConfig(
            add={each: draw(adds) for each in sorted(changed)},
            filter={each: Filter(("web/ai",), ("web/plain",)) for each in sorted(filtered)},
            skip=skip,
        )
    evals = {"choices": Scenarios(suite="small_world")}
    return dataclasses.replace(config, stages=stages, arms=arms, evals=evals, seeds=(0, 3))
