"""The study in the documentation is one."""

import re
from pathlib import Path

from alignpre_jax.foundation import build
from alignpre_jax.study import StudyConfig, Tree
from alignpre_jax.study.outline import outline

PAGE = Path(__file__).parents[2] / "docs/first_study.md"


def test_the_first_study_is_one():
    (code,) = re.findall(
        r"<!-- docs: start-study -->\n```python\n(.*?)```\n<!-- docs: end-study -->", PAGE.read_text(), re.DOTALL
    )
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    config = build(StudyConfig, names["get_config"]().to_dict())
    assert len([line for line in code.splitlines() if line.strip()]) <= 50
    assert [stage.name for stage in outline(config).stages] == ["pretrain", "midtrain", "sft", "benign"]
    assert {run.name for run in Tree(config).values() if run.seed == 0 and run.stage == "pretrain"} == {
        "seed0/pretrain"
    }
