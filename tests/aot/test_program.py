"""A compiled step is read as often as it runs, and each thing in it once."""

import re

import pytest

from llama_jax.aot.program import read_program
from tests.aot.written import MATMUL_FLOPS, MESH, loop


@pytest.mark.parametrize(
    ("start", "step", "direction", "trips"),
    [(0, 1, "LT", 12), (2, 1, "LT", 10), (0, 2, "LT", 6), (1, 5, "LT", 3), (0, 4, "LE", 4)],
)
def test_a_loop_runs_from_its_start_by_its_step_to_its_bound(start, step, direction, trips):
    text = loop(f"constant({start})", f"constant({step})", direction)
    program = read_program(text, MESH)
    assert program.cycles == 100 * trips
    assert program.matmul_flops == MATMUL_FLOPS * trips
    assert not program.doubts


def test_a_fusion_counts_once_and_not_what_is_in_it_too():
    assert read_program(loop("constant(11)"), MESH).cycles == 100


def test_a_loop_whose_counter_cannot_be_read_counts_once_and_is_named():
    program = read_program(loop(start="partition-id()"), MESH)
    assert program.cycles == 100
    assert re.fullmatch(r"Line \d+: how often the loop while\.1 runs .*", program.doubts[0])
