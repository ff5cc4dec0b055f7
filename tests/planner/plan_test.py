"""What is made of a compiled program, without compiling one."""

import dataclasses
import importlib.util
import json

import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.planner import parse_topology, plan, plan_stages, plan_work
from alignpre_jax.planner.chips import GIB
from alignpre_jax.planner.compile import Compiled, Memory, TooLarge, describe_devices, read_too_large

PROGRAM = """HloModule jit_run, is_scheduled=true

ENTRY %main (p: bf16[64,64]) -> bf16[64,64] {
  %p = bf16[64,64]{1,0} parameter(0)
  %product = bf16[64,64]{1,0} convolution(%p, %p), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"1500000"}
  %reduced = bf16[64,64]{1,0} all-reduce(%product), replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %copied = bf16[64,64]{1,0} copy(%reduced), backend_config={"estimated_cycles":"30000"}
}
"""
MEMORY = Memory(arguments=3 * GIB, new_outputs=0, temporaries=2 * GIB, code=GIB)


@pytest.fixture
def compiles(monkeypatch):
    """Puts a result in place of the compiler; the list fills with the steps that were compiled."""
    seen = []

    def put(result=None):
        def fake(step, *rest):
            seen.append((step, *rest))
            return result or Compiled(PROGRAM, MEMORY)

        monkeypatch.setattr(plan, "compile_step", fake)
        return seen

    return put


def test_figures(make_work, compiles):
    compiles()
    work, topology = make_work(), parse_topology("v5e:2x2")
    (made,) = plan_stages([work], topology)
    exchange = 2 * 64 * 64 * 2 * 3 / 4 / 200e9
    seconds = 1_530_000 / topology.chip.clock + exchange
    assert made.fits
    assert made.needed == 6 * GIB
    assert made.time.step == pytest.approx(seconds)
    assert made.speed.tokens_per_second == pytest.approx(8 * 256 / seconds)
    assert made.speed.cycles_per_token_per_chip == pytest.approx(1_530_000 / (8 * 256 / 4))
    assert made.speed.days * 24 * 4 * 3 == pytest.approx(made.speed.chip_hours)  # 4 chips, 3 runs
    assert made.speed.chip_hours == pytest.approx(100 * seconds / 3600 * 4 * 3)
    flops = work.step.model.flops_per_token(256) * 8 * 256
    assert made.speed.mfu == pytest.approx(flops / seconds / (4 * 197e12))
    assert made.program_flops == 2 * 64**3


def test_the_slowest_network_is_the_least_a_step_takes():
    time = plan.Time(compute=1, attention=1, exposed_collectives=1, all_collectives=2, between_slices=5)
    assert time.step == 5
    assert dataclasses.replace(time, between_slices=0).step == 3


def test_stages_with_one_program_are_compiled_once(make_work, compiles):
    seen = compiles()
    works = [
        make_work("pretrain"),
        make_work("midtrain", tokens=50 * 8 * 256, runs=15),
        make_work("wide", mlp_width=1024),
    ]
    made = plan_stages(works, parse_topology("v5e:2x2"))
    assert len(seen) == 2
    assert [each.work for each in made] == works
    assert made[1].speed.chip_hours == pytest.approx(made[0].speed.chip_hours * 15 / 3 / 2)
    assert made[1].speed.tokens_per_second == made[0].speed.tokens_per_second


def test_a_program_that_does_not_fit(make_work, compiles, capsys, tmp_path):
    compiles(TooLarge(needed=20 * GIB, available=15.75 * GIB))
    (made,) = plan_work([make_work(remat="none")], "v5e:2x2", json=tmp_path / "plan.json", hlo=tmp_path / "step.hlo")
    assert not made.fits
    shown = capsys.readouterr().out
    for part in (
        "too large by 4.2 GiB",
        "--config.model.remat=full",
        "--config.stages.pretrain.batch_rows=4",
        "v5e:2x4",
    ):
        assert part in shown
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["stages"][0]["fits"] is False
    assert figures["chip_hours"] is None
    assert not (tmp_path / "step.hlo").exists()


def test_outputs(make_work, compiles, capsys, tmp_path):
    compiles()
    plan_work([make_work(), make_work("more")], "v5e:2x2", json=tmp_path / "plan.json", hlo=tmp_path / "step.hlo")
    shown = capsys.readouterr().out
    assert "prediction, not a measurement" in " ".join(shown.split())
    assert "chip-hours" in shown
    assert (tmp_path / "step.hlo").read_text() == PROGRAM
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["stage"] for stage in figures["stages"]] == ["pretrain", "more"]
    assert figures["prediction"] is True
    first = figures["stages"][0]
    assert first["collectives"] == [
        {"kind": "all-reduce", "devices": 4, "overlapped": False, "between_slices": False, "calls": 1, "bytes": 12288}
    ]
    assert first["step_seconds"] == pytest.approx(first["time"]["compute"] + first["time"]["exposed_collectives"])
    assert figures["chip_hours"] == pytest.approx(sum(stage["speed"]["chip_hours"] for stage in figures["stages"]))


def test_a_stage_shorter_than_a_batch(make_work):
    with pytest.raises(UserError, match="shorter than one batch"):
        plan_stages([make_work(tokens=100)], parse_topology("v5e:2x2"))


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'alignpre_jax\[tpu\]'"):
        describe_devices(parse_topology("v5e:2x2"))


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (88.93G) exceeds available HBM (15.75G). HLO module: jit_run.",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 88.93G of 15.75G hbm. Exceeded by 73G.",
    ],
)
def test_messages_of_the_compiler(message):
    found = read_too_large(message)
    assert (found.needed / GIB, found.available / GIB) == (88.93, 15.75)
    assert read_too_large("INTERNAL: something else") is None
