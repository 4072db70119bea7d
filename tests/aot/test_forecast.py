"""A program over memory is answered with what should fit."""

import dataclasses

import pytest

from llama_jax.aot.forecast import forecast_fit
from llama_jax.config import AdamW
from llama_jax.recipe import load_recipe
from tests.aot.fakes import GIB, machine

POD = machine("v5e:4x4", fsdp=4, fsdp_line=4)
STATE = 12 * 6_738_415_616 / 16 / GIB  # 4.7 GiB a chip


def forecast(
    rows, needed, limit=15.75, *, where=POD, remat="attention", option="--topology", **changes
):
    config = load_recipe("llama2_7b")
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, batch_size=round(rows * where.num_chips)),
        compute=dataclasses.replace(config.compute, remat=remat),
        **changes,
    )
    return forecast_fit(config, where, needed * GIB, limit * GIB, option=option)


def test_activations_shrink_with_the_rows_and_the_state_does_not():
    told = forecast(rows=4, needed=25)
    assert "25.00 GiB" in told
    assert "9.25 GiB too many" in told
    assert "--rows-per-chip 2 should fit" in told
    assert "--compute.remat full" in told


def test_less_than_a_row_a_device_takes_more_chips_or_a_mesh_that_splits_rows():
    told = forecast(rows=1, needed=17, remat="full")
    assert "--topology v5e:4x8 --mesh.fsdp 4 --mesh.fsdp-line 8 --rows-per-chip 1 or" in told
    assert "--mesh.fsdp 2 --mesh.fsdp-line 4 --mesh.tensor 2 --rows-per-chip 0.5 should" in told


def test_where_devices_split_heads_a_chip_can_have_a_part_of_a_row():
    split = machine("v5e:4x4", fsdp=4, tensor=4)
    assert "--rows-per-chip 0.25 should" in forecast(rows=1, needed=35, where=split)
    assert "--rows-per-chip 0.5 should" in forecast(rows=1, needed=22, where=split)


def test_rows_on_a_chip_are_those_of_all_its_devices():
    halves = machine("tpu7x:2x2x2", fsdp=16)
    assert "--rows-per-chip 2 should" in forecast(rows=8, needed=300, limit=94.75, where=halves)


def test_no_rows_help_where_the_state_alone_is_too_large():
    four = machine("v5e:2x2", fsdp=4)
    told = forecast(rows=1, needed=25, where=four)
    assert f"alone take {4 * STATE:.2f}" in told
    assert "--topology v5e:4x4 --mesh.fsdp 4 --mesh.fsdp-line 4 --rows-per-chip 1 should" in told
    assert "remat" not in told


def test_a_state_in_fewer_bits_is_counted_as_what_it_is():
    bfloat16 = AdamW(peak_lr=3e-4, state_dtype="bfloat16")
    four = machine("v5e:2x2", fsdp=4)
    assert "alone" not in forecast(rows=1, needed=25, where=four, optimizer=bfloat16)


def test_slices_each_hold_the_model():
    two = machine("v5e:4x4", slices=2, replica=2, fsdp=4, fsdp_line=4)
    grown = "v5e:4x8 --mesh.replica 2 --mesh.fsdp 4 --mesh.fsdp-line 8"
    assert f"--topology {grown}" in forecast(1, 17, where=two)
    assert f"--pod {grown.replace('4x8', '4x8*2')}" in forecast(1, 17, where=two, option="--pod")


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_full_remat_is_advised_to_those_who_have_it_not(remat):
    assert ("remat full" in forecast(4, 20, remat=remat)) == (remat != "full")


def test_what_nothing_helps_says_so():
    largest = machine("v5e:16x16", fsdp=16, fsdp_line=16)
    assert "Use more chips." in forecast(1, 2000, where=largest, remat="full")


def test_inputs_of_blocks_can_leave_where_nothing_else_is_saved():
    # 32 layers of 4,096 tokens, 4,096 wide, in bfloat16: 1 GiB.
    assert "or --compute.remat offload_inputs" in forecast(1, 16, remat="full")
    assert "offload_inputs" not in forecast(1, 16.5, remat="full")
    # Where they have left already, nothing saves less: full remat would take more.
    assert "--compute.remat" not in forecast(1, 16, remat="offload_inputs")


def test_a_compiler_that_tells_no_size_is_answered_too():
    assert "use fewer rows" in forecast(4, 0, 0)
    assert "more chips" in forecast(1, 0, 0)


def test_what_jax_leaves_of_a_gpu_is_told_where_it_would_do():
    gpus = machine("h100:16", fsdp=16)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in forecast(2, 65, 59.4, where=gpus)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in forecast(2, 80, 59.4, where=gpus)
    assert "--topology h100:64 " in forecast(1, 60, 59.4, where=gpus)
