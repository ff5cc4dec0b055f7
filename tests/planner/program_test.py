"""The parser and the prices, on small programs written by hand and against brute force."""

import itertools

import pytest

from alignpre_jax.planner.chips import CHIPS
from alignpre_jax.planner.attention import attention_flops, attention_seconds, is_attention
from alignpre_jax.planner.costs import Collective, _taps, price
from alignpre_jax.planner.program import Array, parse

CYCLES = 'backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'

# A loop of 3 around a loop of 4; kernel metadata with closing braces and a fake computation head over several lines;
# an estimate on the last of an instruction's lines; an asynchronous all-gather in three pieces.
PROGRAM = """HloModule jit_run, is_scheduled=true, entry_computation_layout={(bf16[8,16]{1,0})->f32[]}

%fused_product (p.0: bf16[8,16], p.1: bf16[16,32]) -> bf16[8,32] {
  %p.0 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %p.1 = bf16[16,32]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = bf16[8,32]{1,0:T(8,128)(2,1)} convolution(%p.0, %p.1), dim_labels=bf_io->bf
}

%fused_start (p.2: bf16[4,32]) -> (bf16[4,32], bf16[16,32]) {
  %p.2 = bf16[4,32]{1,0} parameter(0)
  %all-gather.1 = bf16[16,32]{1,0} all-gather(%p.2), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %custom-call.1 = (bf16[4,32]{1,0}, bf16[16,32]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p.3: bf16[4,32], p.4: f32[8]) -> f32[8] {
  %p.3 = bf16[4,32]{1,0} parameter(0)
  %p.4 = f32[8]{0} parameter(1)
  %all-gather.2 = bf16[16,32]{1,0} all-gather(%p.3), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %add.1 = f32[8]{0} add(%p.4, %p.4)
}

%all-reduce-scatter.1 (p.5: f32[64]) -> f32[8] {
  %p.5 = f32[64]{0} parameter(0)
  %all-reduce.1 = f32[64]{0} all-reduce(%p.5), replica_groups=[2,8]<=[16], to_apply=%sum
  ROOT %dynamic-slice.1 = f32[8]{0} slice(%all-reduce.1), slice={[0:8]}
}

%inner_condition (s.1: (s32[], bf16[8,16])) -> pred[] {
  %s.1 = (s32[], bf16[8,16]{1,0}) parameter(0)
  %gte.1 = s32[] get-tuple-element(%s.1), index=0
  %constant.4 = s32[]{:T(128)} constant(4)
  ROOT %compare.1 = pred[] compare(%gte.1, %constant.4), direction=LT
}

%inner_body (s.2: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %s.2 = (s32[], bf16[8,16]{1,0}) parameter(0)
  %x.1 = bf16[8,16]{1,0} get-tuple-element(%s.2), index=1
  %w.1 = bf16[16,32]{1,0} copy(%x.1), CYCLES_5
  %product.1 = bf16[8,32]{1,0} fusion(%x.1, %w.1), kind=kOutput, calls=%fused_product, CYCLES_100
  ROOT %tuple.1 = (s32[], bf16[8,16]{1,0}) tuple(%x.1, /*index=1*/%x.1)
}

%outer_condition (s.3: (s32[], bf16[8,16])) -> pred[] {
  %s.3 = (s32[], bf16[8,16]{1,0}) parameter(0)
  ROOT %compare.2 = pred[] compare(%s.3, %s.3), direction=LT
}

%outer_body (s.4: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %s.4 = (s32[], bf16[8,16]{1,0}) parameter(0)
  %q.1 = bf16[2,4,256,64]{3,2,1,0:T(8,128)(2,1)} broadcast(%s.4), dimensions={}
  %splash_mha_fwd_segmented.7 = (bf16[2,4,256,64]{3,2,1,0}, f32[2,4,256,128]{3,2,1,0}) custom-call(%q.1, %q.1, /*index=2*/%q.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 128, \\"block_kv\\": 64}", "note":"
}
%fake (a: f32[]) -> f32[] {
"
}}, metadata={op_name="jit(run)/splash"}
  %copy.9 = f32[8]{0} copy(%q.1), frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, CYCLES_7
  ROOT %while.2 = (s32[], bf16[8,16]{1,0}) while(%s.4), condition=%inner_condition, body=%inner_body
}

ENTRY %main.1_spmd (param.0: bf16[8,16]) -> f32[] {
  %param.0 = bf16[8,16]{1,0} parameter(0)
  %gathered.1 = bf16[4,32]{1,0} slice(%param.0), slice={[0:4]}
  %slice-start.1 = ((bf16[8,16]{1,0:T(8,128)}), bf16[4,16]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%param.0), slice={[0:4], [0:16]}
  %async-collective-start = (bf16[4,32]{1,0}, bf16[16,32]{1,0}) fusion(%gathered.1), kind=kCustom, calls=%fused_start
  %beside.1 = f32[8]{0} fusion(%gathered.1, %gathered.1), kind=kCustom, calls=%async_collective_fusion.1, CYCLES_11
  %scattered.1 = f32[8]{0} fusion(%beside.1), kind=kCustom, calls=%all-reduce-scatter.1
  %all-reduce.9 = f32[8]{0} all-reduce(%scattered.1), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
  %send.1 = (f32[16]{0}, u32[], token[]) send(%beside.1, %param.0), is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %while.1 = (s32[], bf16[8,16]{1,0}) while(%param.0), condition=%outer_condition, body=%outer_body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %add.9 = f32[] fusion(%all-reduce.9), kind=kLoop, calls=%fused_sum
}

%fused_sum (p.6: f32[8]) -> f32[] {
  %p.6 = f32[8]{0} parameter(0)
  ROOT %reduce.1 = f32[] reduce(%p.6, %p.6), dimensions={0}
}
"""
for cycles in (5, 7, 11, 100):
    PROGRAM = PROGRAM.replace(f"CYCLES_{cycles}", CYCLES.format(cycles))


def test_loops_are_multiplied_out():
    module = parse(PROGRAM)
    assert module.entry == "main.1_spmd"
    assert module.cycles() == 3 * (7 + 4 * (5 + 100)) + 11
    costs = price(module)
    assert costs.cycles == {"matmul": 3 * 4 * 100, "copy": 3 * (4 * 5 + 7), "other": 11}
    assert costs.matmul_flops == 3 * 4 * 2 * 8 * 16 * 32
    assert costs.unpriced == {"fusion": 1}


def test_shapes():
    module = parse(PROGRAM)
    start = module.computations["main.1_spmd"].by_name["slice-start.1"]
    assert start.results == (Array("bf16", (8, 16)), Array("bf16", (4, 16)), Array("s32", ()))
    assert [Array(kind, (3,)).bytes for kind in ("f32", "bf16", "s8", "pred", "u4", "f8e4m3fn")] == [
        12,
        6,
        3,
        3,
        1.5,
        3,
    ]


def test_collectives_are_counted_once_and_in_bytes_received():
    found = price(parse(PROGRAM)).collectives
    assert found == (
        Collective("all-gather", 3 * 4 * 32 * 2, devices=4, times=1, overlapped=True),
        Collective("reduce-scatter", 64 * 4 * 7 / 8, devices=8, times=1, overlapped=False),
        Collective("all-reduce", 2 * 8 * 4 * 3 / 4, devices=4, times=1, overlapped=False),
        Collective("all-reduce", 64, devices=2, times=1, overlapped=True, between_slices=True),
    )


def test_attention_kernels():
    (kernel,) = price(parse(PROGRAM)).kernels
    assert kernel.name == "splash_mha_fwd_segmented"
    assert kernel.times == 3
    assert is_attention(kernel)
    # Queries 0-127 meet key blocks up to 128, queries 128-255 all 256: products for scores and values.
    pairs = 128 * 128 + 128 * 256
    assert attention_flops(kernel) == 2 * 2 * (2 * 4) * 64 * pairs
    chip = CHIPS["v5e"]
    q, out, sums = 2 * 4 * 256 * 64 * 2, 2 * 4 * 256 * 64 * 2, 2 * 4 * 256 * 128 * 4
    in_memory = (3 * q + out + sums) / chip.hbm_bandwidth
    in_units = 2 * attention_flops(kernel) / chip.peak_flops  # heads of 64 fill half of the matrix unit
    assert attention_seconds(kernel, chip) == pytest.approx(max(in_memory, in_units))


@pytest.mark.parametrize(
    ("size", "kernel", "window"),
    [
        (1, 32, {"pad": 31}),  # how the TPU compiler writes a batch dimension
        (5, 3, {"pad": 1}),
        (9, 4, {"pad": 0, "stride": 2, "rhs_dilate": 2}),
        (7, 7, {"pad": 6, "lhs_dilate": 6, "stride": 7}),
    ],
)
def test_products_with_padding_do_not_count(size, kernel, window):
    window = {"stride": 1, "lhs_dilate": 1, "rhs_dilate": 1} | window
    dilated = [0] * ((size - 1) * window["lhs_dilate"] + 1)
    dilated[:: window["lhs_dilate"]] = [1] * size
    out = 6
    padded = [0] * window["pad"] + dilated + [0] * 100
    expected = sum(
        padded[o * window["stride"] + k * window["rhs_dilate"]] for o, k in itertools.product(range(out), range(kernel))
    )
    assert _taps(size, kernel, out, window) == expected
