"""The real TPU compiler on a tiny decoder. Needs libtpu, and no TPU."""

import collections
import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest

from alignpre_jax.foundation import UserError
from alignpre_jax.planner import Plan, parse_topology, plan_stage
from alignpre_jax.planner.attention import attention_flops, is_attention
from alignpre_jax.planner.compile import describe_devices
from alignpre_jax.planner.decode import decode_work
from alignpre_jax.planner.program import parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]


@pytest.fixture(scope="module")
def planned(make_work, plan_cache):
    return plan_stage(make_work(), parse_topology("v5e:2x2"), plan_cache)


def kernels(made: Plan) -> dict[str, int]:
    """Calls per step of each attention kernel."""
    calls: dict[str, int] = {}
    for kernel in made.costs.kernels:
        name = kernel.name.removeprefix("splash_mha_").split("_")[0]
        calls[name] = calls.get(name, 0) + kernel.times
    return calls


def test_splash_attention_is_in_the_program(planned, make_work):
    layers = make_work().step.model.layers
    assert kernels(planned) == {"fwd": layers, "dq": layers, "dkv": layers}


def test_no_logits_of_the_whole_batch(planned):
    work = planned.work
    config = work.step.model
    logits = work.batch_rows * work.row_length * config.padded_vocab / planned.topology.chips
    assert parse(planned.text).largest("f32") < logits


def test_flops_are_those_of_the_model(planned):
    work = planned.work
    config, tokens = work.step.model, work.tokens_per_step / planned.topology.chips
    expected = config.flops_per_token(work.row_length) * tokens
    # On top of the model's own: the logits are computed once more in the backward pass; attention computes blocks cut
    # by the diagonal whole (one block, here), and its two backward kernels make 7 products where the model counts 4.
    expected += 2 * config.width * config.padded_vocab * tokens
    attention = config.layers * 2 * config.heads * config.head_dim * work.row_length * tokens
    expected += 9 * attention - 6 * attention * (work.row_length + 1) / (2 * work.row_length)
    # Rotary's partners come from a product with an [h, h] matrix, there and back.
    expected += 2 * config.layers * 2 * (config.heads + config.kv_heads) * config.head_dim**2 * tokens
    assert planned.program_flops == pytest.approx(expected, rel=0.02)


def test_memory_holds_the_state(planned):
    config = planned.work.step.model
    state = 3 * 4 * config.num_params() / planned.topology.chips  # weights and two moments, float32, split
    assert planned.memory.arguments == pytest.approx(state, rel=0.02)
    assert planned.memory.new_outputs < 1e5  # metrics; the state is updated in place
    assert planned.fits


@pytest.mark.parametrize(("topology", "slices"), [("v6e:2x2", 2), ("v4:2x2x1", 1), ("v5p:2x2x1", 2)])
def test_other_chips_and_two_slices(make_work, planned, plan_cache, topology, slices):
    made = plan_stage(make_work(), parse_topology(topology, slices), plan_cache)
    assert made.program_flops == pytest.approx(planned.program_flops / slices, rel=0.02)
    assert kernels(made).keys() == {"fwd", "dq", "dkv"}
    assert made.fits


def test_blocks_are_gathered_twice_and_scattered_once_in_bfloat16(planned):
    config, chips = planned.work.step.model, planned.topology.chips
    received = collections.Counter()
    for each in planned.costs.collectives:
        if each.times == config.layers:
            received[each.kind] += each.bytes * each.times
    blocks = config.width * (2 * config.heads + 2 * config.kv_heads) * config.head_dim
    blocks += 3 * config.width * config.mlp_width
    once = 2 * config.layers * blocks * (chips - 1) / chips  # bytes that a chip receives
    assert received["all-gather"] == pytest.approx(2 * once, rel=0.02)
    assert received["reduce-scatter"] == pytest.approx(once, rel=0.02)
    assert received["all-reduce"] < 0.02 * once


def test_the_loss_exchanges_nothing_per_chunk(planned):
    layers = planned.work.step.model.layers
    per_chunk = [each for each in planned.costs.collectives if each.times not in (1, layers)]
    assert sum(each.bytes * each.times for each in per_chunk) < 1e4  # the output table has 512 KiB


@pytest.mark.parametrize("slices", [1, 2])
def test_decoding(make_work, plan_cache, slices):
    work = decode_work(make_work().step.model, "fsdp:-1", rows=8, slots=256)
    made = plan_stage(work, parse_topology("v5e:2x2", slices), plan_cache)
    assert made.fits
    assert made.speed.tokens_per_second > 0
    assert {"weights", "cache"} <= made.groups.keys()
    model, rows = work.program.arguments["model"], 8 // made.topology.chips
    paged = [kernel for kernel in made.costs.kernels if is_attention(kernel)]
    assert sum(kernel.times for kernel in paged) == model["layers"] * work.steps_per_call
    assert {attention_flops(kernel) for kernel in paged} == {4 * model["heads"] * model["head_dim"] * rows * 256}
    assert made.time.attention > 0


def test_too_large_is_a_result_and_no_crash(make_work, plan_cache):
    work = dataclasses.replace(make_work(width=4096, mlp_width=32_768, layers=16), mesh="data:-1")
    made = plan_stage(work, parse_topology("v5e:2x2"), plan_cache)
    assert not made.fits
    assert made.needed > made.available > 15e9
    assert any("fsdp" in line for line in made.advice)


def test_a_shape_that_is_not_to_be_had():
    with pytest.raises(UserError, match="cannot describe v5e:3x5: INVALID_ARGUMENT"):
        describe_devices(parse_topology("v5e:3x5"))


def test_two_processes_may_plan_at_once():
    code = """
from alignpre_jax.planner import parse_topology
from alignpre_jax.planner.compile import describe_devices
print(len(describe_devices(parse_topology("v5e:2x2"))), flush=True)
input()
"""
    command, env = [sys.executable, "-c", code], os.environ | {"JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        assert [process.stdout.readline() for process in (first, second)] == ["4\n", "4\n"]
        for process in (first, second):
            process.communicate("\n", timeout=60)
