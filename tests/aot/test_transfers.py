"""What goes to the memory of the host and back is counted, with the work that is done beside it."""

import pytest

from llama_jax.aot.program import read_program
from tests.aot.written import MATMUL, MATMUL_FLOPS, MESH, main, module

HOST = "bf16[12,8,16]{2,1,0:S(5)}"
ROW = "bf16[1,8,16]{2,1,0}"
ROW_BYTES = 8 * 16 * 2
INDEX = "%zero = s32[] constant(0)"
BUFFER = f'%host = {HOST} custom-call(), custom_call_target="AllocateBuffer"'
INPUTS = """
    %x = bf16[8,16]{1,0} parameter(0)
    %w = bf16[16,4]{1,0} parameter(1)
    %row = bf16[1,8,16]{2,1,0} parameter(2)
"""
WORK = "%fusion.1 = bf16[8,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%matmul @100"
SEND = (
    f"%sent = (({HOST}, {ROW}, s32[], s32[], s32[]), {HOST}, u32[]{{:S(2)}}) "
    "dynamic-update-slice-start(%host, %row, %zero, %zero, %zero)"
)
SENT = f"%sent.done = {HOST} dynamic-update-slice-done(%sent)"
FETCH = (
    f"%got = (({HOST}, s32[], s32[], s32[]), {ROW}, u32[]{{:S(2)}}) "
    "dynamic-slice-start(%host, %zero, %zero, %zero)"
)
FETCHED = f"%got.done = {ROW} dynamic-slice-done(%got)"
END = "ROOT %end = (s32[]) tuple(%zero)"


def transfers(*lines):
    text = module(MATMUL, main("\n".join((INPUTS, INDEX, BUFFER, *lines, END))))
    return read_program(text, MESH)


@pytest.mark.parametrize(
    ("start", "done", "direction"), [(SEND, SENT, "to host"), (FETCH, FETCHED, "from host")]
)
def test_a_transfer_counts_its_slice_and_the_work_beside_it(start, done, direction):
    (one,) = transfers(start, WORK, done).transfers
    assert (one.direction, one.bytes, one.count, one.exposed) == (direction, ROW_BYTES, 1, False)
    assert (one.overlap.cycles, one.overlap.matmul_flops) == (100, MATMUL_FLOPS)
    (bare,) = transfers(start, done, WORK).transfers
    assert bare.exposed and not bare.overlap.cycles


def test_transfers_of_one_way_share_the_link_and_the_work():
    again = SEND.replace("%sent", "%sent.2"), SENT.replace("%sent", "%sent.2")
    (both,) = transfers(SEND, again[0], WORK, SENT, again[1]).transfers
    assert (both.bytes, both.count, both.overlap.cycles) == (2 * ROW_BYTES, 2, 100)
    ways = transfers(SEND, FETCH, WORK, SENT, FETCHED).transfers
    assert [one.direction for one in ways] == ["to host", "from host"]


def test_one_that_ends_in_another_iteration_lasts_to_the_end_of_this_one():
    (one,) = transfers(SEND, WORK).transfers
    assert one.overlap.cycles == 100


@pytest.mark.parametrize(
    ("copy", "direction"),
    [
        ("%host.2 = bf16[8,16]{1,0:S(5)} copy(%x)", "to host"),
        ("%h = bf16[8,16]{1,0:S(5)} parameter(3)\n%d = bf16[8,16]{1,0} copy(%h)", "from host"),
    ],
)
def test_a_copy_that_nothing_runs_beside_is_exposed(copy, direction):
    (one,) = transfers(copy, WORK).transfers
    assert (one.direction, one.bytes, one.exposed) == (direction, ROW_BYTES, True)


def test_the_device_s_own_memory_is_read_or_written_once():
    plain = transfers(WORK).hbm_bytes
    assert transfers(SEND, WORK, SENT).hbm_bytes == plain + ROW_BYTES
    assert transfers(FETCH, WORK, FETCHED).hbm_bytes == plain + ROW_BYTES


def test_a_fusion_that_starts_beside_is_read_as_what_it_moves():
    # As programs of GPUs write it.
    as_fusion = SEND.replace("dynamic-update-slice-start(", "fusion-start(")
    done = SENT.replace("dynamic-update-slice-done", "fusion-done")
    (one,) = transfers(f"{as_fusion}, kind=kCustom, calls=%matmul", WORK, done).transfers
    assert (one.direction, one.bytes) == ("to host", ROW_BYTES)
