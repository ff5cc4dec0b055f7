"""What is made of a compiled program, without compiling one."""

import dataclasses
import importlib.util
import json

import pytest

from alignpre_jax.foundation import CHIPS, GIB, UserError
from alignpre_jax.planner import Options, compare, parse_topology, plan, plan_stages, plan_work, search
from alignpre_jax.planner.compile import Compiled, Memory, TooLarge, describe_devices, read_too_large
from alignpre_jax.planner.cost import read_prices, study_cost
from alignpre_jax.planner.render import figures_of, to_json
from alignpre_jax.planner.search import candidates

PROGRAM = """HloModule jit_run, is_scheduled=true

ENTRY %main (p: bf16[64,64]) -> bf16[64,64] {
  %p = bf16[64,64]{1,0} parameter(0)
  %product = bf16[64,64]{1,0} convolution(%p, %p), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"1500000"}
  %reduced = bf16[64,64]{1,0} all-reduce(%product), replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %copied = bf16[64,64]{1,0} copy(%reduced), backend_config={"estimated_cycles":"30000"}
}
"""
MEMORY = Memory(arguments=3 * GIB, new_outputs=0, temporaries=4 * GIB, code=GIB, allocated=5 * GIB)


@pytest.fixture
def compiles(monkeypatch):
    """Puts a result in place of the compiler; the list fills with the steps that were compiled."""
    seen = []

    def put(result=None):
        def fake(program, topology, cache):
            seen.append(program)
            found = result or Compiled(PROGRAM, MEMORY)
            return found(program) if callable(found) else found

        monkeypatch.setattr(plan, "compiled", fake)
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
    options = Options(json=tmp_path / "plan.json", hlo=tmp_path / "step.hlo", html=tmp_path / "plan.html")
    (made,) = plan_work([make_work(remat="none")], "v5e:2x2", options=options)
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
    assert "--config.model.remat=full" in (tmp_path / "plan.html").read_text()
    assert not (tmp_path / "step.hlo").exists()


def test_outputs(make_work, compiles, capsys, tmp_path):
    compiles()
    options = Options(json=tmp_path / "plan.json", hlo=tmp_path / "step.hlo", html=tmp_path / "plan.html")
    plan_work([make_work(), make_work("more")], "v5e:2x2", options=options)
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


def test_memory_without_a_report_is_said_to_be_added_up(make_work, compiles):
    said = {}
    for allocated in (5 * GIB, None):
        compiles(Compiled(PROGRAM, dataclasses.replace(MEMORY, allocated=allocated)))
        (made,) = plan_stages([make_work()], parse_topology("v5e:2x2"))
        said[made.needed] = figures_of(made)["  (sizes added up)"]
    assert said == {6 * GIB: "(8.00)", 8 * GIB: "(8.00 and taken: the compiler wrote no report)"}


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


def test_the_search_asks_for_the_most_promising_and_says_what_to_take(make_work, compiles):
    def result(program):
        names = program.arguments["step"]["model"]["remat"]
        too_large = "gate" in names or program.arguments["step"]["optimizer"]["accumulate"] == 1
        memory = dataclasses.replace(MEMORY, allocated=GIB * (4 + names.count(",")))
        return TooLarge(20 * GIB, 15.75 * GIB) if too_large else Compiled(PROGRAM, memory)

    seen = compiles(result)
    work = make_work()
    found = search(work, parse_topology("v5e:2x2"), most=9)
    assert len(seen) <= 9
    assert "gate,up" in seen[0].arguments["step"]["model"]["remat"]  # the fastest by the estimate first
    asked = [each for each in found.candidates if each.plan]
    assert {each.plan.fits for each in asked} == {True, False}
    assert found.best.accumulate == 2
    assert seen[0].arguments["step"]["optimizer"]["accumulate"] == 1  # fewer exchanges of the parameters
    assert found.best.flags.startswith("--config.model.remat=")
    front = found.front
    assert [each.seconds for each in front] == sorted(each.seconds for each in front)
    assert [each.plan.needed for each in front] == sorted((each.plan.needed for each in front), reverse=True)
    rows = {each.accumulate for each in found.candidates}
    assert rows == {1, 2}  # 8 rows on 4 chips


def test_what_an_mlp_has_is_what_may_be_kept(make_work):
    topology = parse_topology("v5e:2x2")
    gated, plain = ({each.remat for each in candidates(make_work(mlp=mlp), topology)} for mlp in ("swiglu", "gelu"))
    assert "save:gate,q" in gated
    assert "save:up,q" not in gated
    assert "save:up,q" in plain
    assert not any("gate" in remat for remat in plain)


def test_shared_stages_are_paid_once(make_work, compiles):
    compiles()
    works = [make_work("pretrain", runs=2), make_work("midtrain", tokens=50 * 8 * 256, runs=4)]
    plans = plan_stages(works, parse_topology("v5e:2x2"))
    arms = {"a": [("pretrain", True), ("midtrain", False)], "b": [("pretrain", True), ("midtrain", False)]}
    cost = study_cost(plans, arms, seeds=2, price=1.2)
    long, short = plans[0].speed.chip_hours / 2, plans[1].speed.chip_hours / 4
    assert cost.total.chip_hours == pytest.approx(2 * (long + 2 * short))
    assert cost.total.dollars == pytest.approx(1.2 * cost.total.chip_hours)
    assert cost.arms["a"].chip_hours == pytest.approx(long + short)
    assert cost.added["b"].chip_hours == pytest.approx(short)
    assert cost.shared.chip_hours == pytest.approx(long)
    assert study_cost(plans[:1], arms, seeds=2, price=None) is None  # a stage was not planned


def test_prices(tmp_path):
    assert read_prices().keys() <= CHIPS.keys()
    (tmp_path / "own.toml").write_text("v5e = 0.4\n")
    assert read_prices(tmp_path / "own.toml") == {"v5e": 0.4}
    (tmp_path / "own.toml").write_text("v9 = 0.4\n")
    with pytest.raises(UserError, match="v9"):
        read_prices(tmp_path / "own.toml")


def test_compared(make_work, compiles, tmp_path):
    compiles()
    before = to_json(plan_stages([make_work()], parse_topology("v5e:2x2")))
    compiles(Compiled(PROGRAM.replace("1500000", "3000000"), MEMORY))
    after = to_json(plan_stages([make_work()], parse_topology("v5e:2x2")))
    changes = {each.figure: each for each in compare(before, after)}
    assert changes["cycles: matmul"].ratio == pytest.approx(2)
    assert changes["program FLOPs"].ratio == 1
    assert changes["cycles in all"].worse_by(5)
    assert not changes["HBM, GiB"].worse_by(5)
    (tmp_path / "before.json").write_text(json.dumps(before))
    with pytest.raises(UserError, match=r"worse than .* by more than 5%.*cycles in all"):
        plan_work([make_work()], "v5e:2x2", options=Options(against=tmp_path / "before.json", fail_above=5))
