"""Matmuls of a program are known by their shapes, and its largest results by theirs."""

import pytest

from llama_jax.aot.program import read_program
from llama_jax.aot.shapes import Matmul
from tests.aot.written import MATMUL, MATMUL_FLOPS, MESH, loop, main, module


def test_a_matmul_in_a_fusion_in_a_loop_has_its_shape_and_all_its_flops():
    (one,) = read_program(loop(), MESH).matmuls
    assert (one.contracted, one.features, one.rows) == (16, 4, 8)
    assert one.flops == 12 * MATMUL_FLOPS


@pytest.mark.parametrize(
    ("sizes", "unit", "share"),
    [
        ((512, 256, 1024), 128, 1.0),
        ((700, 512, 1024), 128, 768 / 700),
        ((512, 700, 1024), 256, 768 / 700),
        ((100, 100, 8), 128, 1.28 * 1.28),
        ((128, 128, 4), 128, 2.0),
    ],
)
def test_matrix_units_do_whole_tiles(sizes, unit, share):
    assert Matmul(*sizes, flops=100.0, where="").padded(unit) == pytest.approx(100 * share)


def test_the_largest_results_come_first_and_each_shape_once():
    found = read_program(
        module(
            MATMUL,
            main(
                """
                %x = bf16[8,16]{1,0} parameter(0)
                %w = bf16[16,4]{1,0} parameter(1)
                %small = bf16[8,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%matmul @100
                %again = bf16[8,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%matmul @100
                %large = f32[64,64]{1,0} broadcast(%x), dimensions={}
                %near = f32[64,64]{1,0:S(1)} copy(%large)
                %host = f32[128,64]{1,0:S(5)} broadcast(%x), dimensions={}
                ROOT %end = (bf16[8,4]{1,0}, bf16[8,4]{1,0}) tuple(%small, %again)
                """
            ),
        ),
        MESH,
    ).results
    assert [one.name for one in found] == ["large", "small"]
