"""Each collective is found once, with its axis, its bytes, and what hides it."""

import pytest

from llama_jax.aot.program import read_program
from tests.aot.written import MATMUL, MATMUL_FLOPS, MESH, computation, main, module

X = "%x = f32[8,16]{1,0} parameter(0)\n"
ADD = computation(
    "add", "%a = f32[] parameter(0)\n%b = f32[] parameter(1)\nROOT %c = f32[] add(%a, %b)"
)


def collectives(*computations: str, mesh=MESH):
    return read_program(module(ADD, *computations), mesh).collectives


def only(*computations: str, mesh=MESH):
    (collective,) = collectives(*computations, mesh=mesh)
    return collective


ROWS, COLUMNS, ALL = ((("fsdp",), 4), (("replica",), 2), (("replica", "fsdp"), 8))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", ROWS),
        ("{{0,4},{1,5},{2,6},{3,7}}", COLUMNS),
        ("{}", ALL),
        ("[2,4]<=[8]", ROWS),
        ("[4,2]<=[2,4]T(1,0)", COLUMNS),
        ("[1,8]<=[8]", ALL),
        ("[8,1]<=[8]", ((), 1)),
        ("[4,2]<=[8]", (("fsdp",), 2)),
        ("mesh['a'=2,'b'=4] {'b'}", ROWS),
        ("mesh['a'=2,'b'=4] {'a'}", COLUMNS),
        ("mesh['a'=8,'b'=1] {'a','b'}", ALL),
        ("mesh['a'=8] {'a':(2)4}", ROWS),
        ("mesh['a'=8] {'a':(1)2}", COLUMNS),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", ROWS),
    ],
)
def test_the_mesh_axis_is_told_by_the_devices_of_a_group(groups, expected):
    found = only(
        main(
            X + f"ROOT %y = f32[8,16]{{1,0}} all-reduce(%x), channel_id=1, "
            f"replica_groups={groups}, use_global_device_ids=true, to_apply=%add"
        )
    )
    assert (found.axes, found.group_size) == expected


def test_the_mesh_axis_of_a_permutation_is_told_by_its_pairs():
    found = only(
        main(
            X + "ROOT %y = f32[8,16]{1,0} collective-permute(%x), "
            "source_target_pairs={{0,4},{1,5},{2,6},{3,7}}"
        )
    )
    assert (found.kind, found.axes, found.group_size) == ("collective-permute", ("replica",), 2)


def test_a_device_outside_of_the_mesh_is_refused_by_its_line():
    with pytest.raises(ValueError, match=r"line 11: all-reduce names device 9.*fsdp=4 has 8"):
        only(main(X + "ROOT %y = f32[8,16] all-reduce(%x), replica_groups={{0,9}}, to_apply=%add"))


@pytest.mark.parametrize(
    ("kind", "shape", "sent"),
    [
        ("all-gather", "f32[32,16]{1,0}", 3 * 512),
        ("reduce-scatter", "f32[2,16]{1,0}", 3 * 128),
        ("all-reduce", "f32[8,16]{1,0}", 2 * 3 * 128),
        ("all-to-all", "f32[8,16]{1,0}", 3 * 128),
    ],
)
def test_a_synchronous_collective_is_exposed_and_sends_what_a_ring_does(kind, shape, sent):
    line = f"ROOT %y = {shape} {kind}(%x), replica_groups=[2,4]<=[8], dimensions={{0}} @90"
    found = only(main(X + line))
    assert (found.kind, found.exposure, found.count) == (kind, "exposed", 1)
    assert found.overlap.cycles == 0
    assert found.sent_bytes == sent


ASYNC = (
    """
    %x = f32[8,16]{1,0} parameter(0)
    %begun = (f32[8,16]{1,0}, f32[32,16]{1,0}) all-gather-start(%x), replica_groups=[2,4]<=[8]
    """,
    "%y = f32[32,16]{1,0} all-gather-done(%begun)\n",
)


def test_a_start_that_ends_at_once_is_exposed():
    found = only(main(ASYNC[0] + "ROOT " + ASYNC[1]))
    assert (found.kind, found.exposure, found.bytes) == ("all-gather", "exposed", 2048)


def test_work_between_start_and_end_overlaps_and_is_summed():
    work = "%a = f32[8,16]{1,0} negate(%x) @40\n%b = f32[8,16]{1,0} negate(%a) @2\n"
    later = "ROOT %c = f32[8,16]{1,0} negate(%b) @1000"
    found = only(main(ASYNC[0] + work + ASYNC[1] + later))
    assert (found.exposure, found.overlap.cycles) == ("overlapped", 42)


def test_a_matmul_without_an_estimate_overlaps():
    work = (
        "%q = bf16[8,16]{1,0} parameter(1)\n%w = bf16[16,4]{1,0} parameter(2)\n"
        "%fusion.1 = bf16[8,4]{1,0} fusion(%q, %w), kind=kCustom, calls=%matmul\n"
    )
    found = only(MATMUL.replace(" @70", ""), main(ASYNC[0] + work + "ROOT " + ASYNC[1]))
    assert (found.exposure, found.overlap.matmul_flops) == ("overlapped", MATMUL_FLOPS)


def test_a_kernel_between_start_and_end_overlaps():
    work = (
        "%q = bf16[2,8,4]{2,1,0} parameter(1)\n"
        "%splash_mha_fwd.1 = bf16[2,8,4]{2,1,0} custom-call(%q, %q, %q), "
        'custom_call_target="tpu_custom_call"\n'
    )
    found = only(main(ASYNC[0] + work + "ROOT " + ASYNC[1]))
    assert found.exposure == "overlapped"
    assert found.overlap.kernel_flops == 4 * 2 * 36 * 4


@pytest.mark.parametrize(("opcode", "role"), [("async", "calls"), ("call", "to_apply")])
def test_a_collective_that_an_asynchronous_call_runs_is_found_once(opcode, role):
    wrapped = computation(
        "wrapped",
        """
        %p = f32[8,16]{1,0} parameter(0)
        ROOT %s = f32[2,16]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], to_apply=%add
        """,
    )
    found = only(
        wrapped,
        main(
            f"""
            %x = f32[8,16]{{1,0}} parameter(0)
            %begun = ((f32[8,16]{{1,0}}), f32[2,16]{{1,0}}) {opcode}-start(%x), {role}=%wrapped
            %work = f32[8,16]{{1,0}} negate(%x) @7
            %going = ((f32[8,16]{{1,0}}), f32[2,16]{{1,0}}) {opcode}-update(%begun)
            %work.2 = f32[8,16]{{1,0}} negate(%x) @8
            ROOT %y = f32[2,16]{{1,0}} {opcode}-done(%going)
            """
        ),
    )
    assert (found.kind, found.exposure, found.bytes) == ("reduce-scatter", "overlapped", 128)
    assert found.overlap.cycles == 15


GATHER = (
    "%g = f32[32,16]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[8], "
    'frontend_attributes={chain_id="0"}\n'
)
CHAIN = (
    MATMUL,
    computation(
        "begin",
        "%p = f32[8,16]{1,0} parameter(0)\n" + GATHER + "ROOT %c = (f32[8,16]{1,0}, "
        'f32[32,16]{1,0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"',
    ),
    computation(
        "beside",
        """
        %p = f32[8,16]{1,0} parameter(0)
        %l = bf16[8,16]{1,0} parameter(1)
        %r = bf16[16,4]{1,0} parameter(2)
        """
        + GATHER
        + """%m = bf16[8,4]{1,0} fusion(%l, %r), kind=kOutput, calls=%matmul
        ROOT %t = (bf16[8,4]{1,0}, f32[8,16]{1,0}) tuple(%m, %p)
        """,
    ),
    computation(
        "finish",
        "%p = f32[8,16]{1,0} parameter(0)\n" + GATHER + "ROOT %c = f32[32,16]{1,0} "
        'custom-call(%p, %g), custom_call_target="AsyncCollectiveDone"',
    ),
)
RUN = """
%x = f32[8,16]{1,0} parameter(0)
%l = bf16[8,16]{1,0} parameter(1)
%r = bf16[16,4]{1,0} parameter(2)
%one = (f32[8,16]{1,0}, f32[32,16]{1,0}) fusion(%x), kind=kCustom, calls=%begin
%two = (bf16[8,4]{1,0}, f32[8,16]{1,0}) fusion(%x, %l, %r), kind=kOutput, calls=%beside @300
%y = f32[32,16]{1,0} fusion(%x), kind=kCustom, calls=%finish
"""


def test_the_parts_of_an_asynchronous_fusion_are_one_collective():
    found = only(*CHAIN, main(RUN + "ROOT %z = f32[32,16]{1,0} negate(%y) @1000"))
    assert (found.kind, found.exposure, found.bytes) == ("all-gather", "fused", 2048)
    assert found.overlap.cycles == 300


def test_what_an_asynchronous_fusion_only_hands_on_is_no_memory_traffic():
    program = read_program(module(ADD, *CHAIN, main(RUN + "ROOT %z = f32[] constant(0)")), MESH)
    # The matmul's operands and its result.
    assert program.hbm_bytes == 2 * (8 * 16 + 16 * 4 + 8 * 4)


def test_the_next_collective_of_the_same_channel_is_another_one():
    again = RUN.replace("%one", "%one.2").replace("%two", "%two.2").replace("%y", "%y.2")
    again = again[again.index("%one.2") :]
    assert len(collectives(*CHAIN, main(RUN + again + "ROOT %z = f32[] constant(0)"))) == 2


def test_an_asynchronous_fusion_without_a_matmul_beside_it_is_exposed():
    parts = [line for line in RUN.splitlines() if "%two" not in line]
    found = only(*CHAIN, main("\n".join(parts) + "\nROOT %z = f32[] constant(0)"))
    assert found.exposure == "exposed"


def test_an_all_reduce_fused_with_its_slice_is_a_reduce_scatter():
    scatter = computation(
        "all-reduce-scatter",
        """
        %input = f32[8,16]{1,0} parameter(0)
        %sum = f32[8,16]{1,0} all-reduce(%input), replica_groups=[2,4]<=[8], to_apply=%add
        %zero = u32[] constant(0)
        %id = u32[] partition-id()
        ROOT %own = f32[2,16]{1,0} dynamic-slice(%sum, %id, %zero), dynamic_slice_sizes={2,16}
        """,
    )
    fusion = "ROOT %y = f32[2,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter"
    found = only(scatter, main(X + fusion))
    assert (found.kind, found.bytes, found.exposure) == ("reduce-scatter", 128, "exposed")
    assert found.stands_for == ""
    assert found.sent_bytes == 3 * 128


ALL_REDUCE = "%y = f32[32,16]{1,0} all-reduce(%wide), replica_groups=[2,4]<=[8], to_apply=%add\n"
PLACED = """
%zero = f32[] constant(0)
%zeros = f32[32,16]{1,0} broadcast(%zero), dimensions={}
%id = s32[] parameter(1)
%none = s32[] constant(0)
"""
UPDATE = "dynamic-update-slice(%zeros, %x, %id, %none)\n"


@pytest.mark.parametrize("fused", ["nothing", "update", "update and zeros"])
def test_an_all_reduce_of_a_zero_padded_buffer_stands_for_an_all_gather(fused):
    inside = computation(
        "place",
        {
            "update": "%x = f32[8,16]{1,0} parameter(0)\n%zeros = f32[32,16]{1,0} parameter(2)\n"
            "%id = s32[] parameter(1)\n%none = s32[] constant(0)\n",
            "update and zeros": X + PLACED,
        }.get(fused, X + PLACED)
        + "ROOT %u = f32[32,16]{1,0} "
        + UPDATE,
    )
    wide = {
        "nothing": "%u = f32[32,16]{1,0} " + UPDATE + "%wide = f32[32,16]{1,0} bitcast(%u)\n",
        "update": "%wide = f32[32,16]{1,0} fusion(%x, %id, %zeros), kind=kLoop, calls=%place\n",
        "update and zeros": "%wide = f32[32,16]{1,0} fusion(%x, %id), kind=kLoop, calls=%place\n",
    }[fused]
    found = only(inside, main(X + PLACED + wide + "ROOT " + ALL_REDUCE))
    assert (found.kind, found.stands_for) == ("all-reduce", "all-gather")


def test_an_all_reduce_of_a_buffer_padded_with_ones_stands_for_itself():
    ones = (X + PLACED).replace("f32[] constant(0)", "f32[] constant(1)")
    wide = "%wide = f32[32,16]{1,0} " + UPDATE
    assert only(main(ones + wide + "ROOT " + ALL_REDUCE)).stands_for == ""


SLICE = "%s = f32[8,16]{1,0} dynamic-slice(%y, %id, %none), dynamic_slice_sizes={8,16}\n"
WHOLE = (
    "%wide = f32[32,16]{1,0} parameter(2)\n%id = s32[] parameter(1)\n%none = s32[] constant(0)\n"
)


def test_an_all_reduce_of_which_a_slice_is_kept_stands_for_a_reduce_scatter():
    assert only(main(WHOLE + ALL_REDUCE + "ROOT " + SLICE)).stands_for == "reduce-scatter"


def test_an_all_reduce_that_is_read_whole_as_well_stands_for_itself():
    text = WHOLE + ALL_REDUCE + SLICE + "ROOT %n = f32[32,16]{1,0} negate(%y)"
    assert only(main(text)).stands_for == ""


def test_a_slice_inside_a_fusion_is_seen_through_tuples():
    keep = computation(
        "keep",
        """
        %y = f32[32,16]{1,0} parameter(0)
        %id = s32[] parameter(1)
        %none = s32[] constant(0)
        ROOT %s = f32[8,16]{1,0} dynamic-slice(%y, %id, %none), dynamic_slice_sizes={8,16}
        """,
    )
    both = (
        "%both = (f32[32,16]{1,0}, f32[32,16]{1,0}) all-reduce(%wide, %wide), "
        "replica_groups=[2,4]<=[8], to_apply=%add\n"
        "%first = f32[32,16]{1,0} get-tuple-element(%both), index=0\n"
        "ROOT %out = f32[8,16]{1,0} fusion(%first, %id), kind=kLoop, calls=%keep"
    )
    assert only(keep, main(WHOLE + both)).stands_for == "reduce-scatter"


def test_cycles_of_another_core_are_not_those_of_the_schedule():
    beside = computation(
        "beside",
        """
        %p = f32[8,16]{1,0} parameter(0)
        %copy = f32[8,16]{1,0} copy(%p) @9223372036854775807
        ROOT %n = f32[8,16]{1,0} negate(%copy) @50
        """,
    )
    program = read_program(
        module(
            beside,
            main(
                """
                %x = f32[8,16]{1,0} parameter(0)
                %begun = ((f32[8,16]{1,0}), f32[8,16]{1,0}) call-start(%x), to_apply=%beside
                %y = f32[8,16]{1,0} call-done(%begun)
                ROOT %z = f32[8,16]{1,0} copy(%y) @9223372036854775807
                """
            ),
        ),
        MESH,
    )
    assert (program.cycles, program.work, program.collectives) == (0, (), ())
    assert program.hbm_bytes == 3 * 2 * 512


def test_a_collective_of_a_loop_counts_with_each_iteration():
    state = "(s32[], f32[8,16]{1,0})"
    body = computation(
        "body",
        f"""
        %s = {state} parameter(0)
        %i = s32[] get-tuple-element(%s), index=0
        %x = f32[8,16]{{1,0}} get-tuple-element(%s), index=1
        %one = s32[] constant(1)
        %next = s32[] add(%i, %one)
        %y = f32[8,16]{{1,0}} all-reduce(%x), replica_groups={{}}, to_apply=%add
        ROOT %t = {state} tuple(%next, %y)
        """,
    )
    condition = computation(
        "condition",
        f"""
        %s = {state} parameter(0)
        %i = s32[] get-tuple-element(%s), index=0
        %n = s32[] constant(5)
        ROOT %c = pred[] compare(%i, %n), direction=LT
        """,
    )
    start = f"%zero = s32[] constant(0)\n%t = {state} tuple(%zero, %x)\n"
    run = f"ROOT %w = {state} while(%t), condition=%condition, body=%body"
    found = only(body, condition, main(X + start + run))
    assert (found.count, found.bytes) == (5, 5 * 512)


MEGASCALE = (
    "channel_id=3, is_host_transfer=true, frontend_attributes="
    '{_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_transfer_type="ALL_REDUCE"}'
)
BETWEEN_SLICES = f"""
{X}
%token = token[] after-all()
%recv = (f32[8,16]{{1,0}}, u32[], token[]) recv(%token), {MEGASCALE}
%send = (f32[8,16]{{1,0}}, u32[], token[]) send(%x, %token), {MEGASCALE}
%sent = token[] send-done(%send), channel_id=3
%work = f32[8,16]{{1,0}} negate(%x) @60
%done = (f32[8,16]{{1,0}}, token[]) recv-done(%recv), channel_id=3
ROOT %y = f32[8,16]{{1,0}} get-tuple-element(%done), index=0
"""


def test_a_collective_between_slices_goes_from_send_to_recv():
    text = module(ADD, main(BETWEEN_SLICES)).replace("\n", ", num_partitions=4\n", 1)
    (found,) = read_program(text, MESH).collectives
    assert (found.kind, found.axes, found.group_size) == ("all-reduce", ("replica",), 2)
    assert (found.bytes, found.exposure, found.overlap.cycles) == (512, "overlapped", 60)


def test_devices_of_a_slice_are_numbered_within_it():
    inside = "ROOT %y = f32[8,16] all-reduce(%x), replica_groups=[1,4]<=[4], to_apply=%add"
    text = module(ADD, main(X + inside)).replace("\n", ", num_partitions=4\n", 1)
    (found,) = read_program(text, MESH).collectives
    assert (found.axes, found.group_size) == (("fsdp",), 4)


def test_a_transfer_to_the_host_is_no_collective():
    text = BETWEEN_SLICES.replace("_xla_megascale_transfer_type", "_other")
    assert collectives(main(text)) == ()
