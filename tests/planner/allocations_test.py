from alignpre_jax.planner.allocations import main_report, read_allocations

HEAD = "  cumulative_size;       size;       offset; used_by_n_values; shapes_list\n  ---------------\n"
REPORT = f"""Memory Space: default (color=0)
Total bytes: 205619712 (196.09MiB)
{HEAD}  160.00MiB( 84%);  160.00MiB;            0;                1; bf16[20,2048,2048]

{HEAD}    1.50MiB(  8%);    1.50MiB;      2506752;                5; f32[1,128], 2×bf16[4,1,1024,128], (s32[2], u32[])
   17.50MiB( 95%);   16.00MiB;     27672576;                5; 5×bf16[6,2,4,2048,32]
   18.27MiB(100%);   786.0KiB;            0;                1; f32[]
   18.27MiB(100%);       512B;            0;                1; f32[4]
  The rest 406 values are less than 5% of the total size and not shown.

Memory Space: vmem (color=1)
Total bytes: 85709312 (81.74MiB)
{HEAD}   64.00MiB( 78%);   64.00MiB;            0;                1; bf16[32]
    1.0MiB( 79%);    1.0MiB;            0;                1; bf16[32]
    1.0MiB( 80%);    1.0MiB;            0;                1; bf16[32]
    1.0MiB( 81%);    1.0MiB;            0;                1; bf16[32]
    1.0MiB( 82%);    1.0MiB;            0;                1; bf16[32]
"""


def test_the_temporaries_of_hbm_the_largest_first():
    found = read_allocations(REPORT, most=3)
    assert found.hbm == 205_619_712
    assert [(buffer.bytes, buffer.arrays) for buffer in found.temporaries] == [
        (16 << 20, "5×bf16[6,2,4,2048,32]"),
        (1.5 * (1 << 20), "f32[1,128], 2×bf16[4,1,1024,128], (s32[2], u32[])"),
        (786 << 10, "f32[]"),
    ]


def test_the_report_of_the_largest_program(tmp_path):
    assert main_report(tmp_path) == ""
    assert read_allocations("") is None
    name = "module_000{}.jit_run.after_optimizations-memory-usage-report.txt"
    for number, total in enumerate((7, 205_619_712, 99)):
        (tmp_path / name.format(number)).write_text(REPORT.replace("205619712", str(total)), "utf-8")
    (tmp_path / "module_0001.jit_run.after_codegen.txt").write_text("other")
    assert main_report(tmp_path) == REPORT
