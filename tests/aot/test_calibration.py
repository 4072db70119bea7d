"""The fit finds what made the samples, and leaving one out tests it on what it has not seen."""

import pytest

from benchmarks.pods import samples
from llama_jax.aot.calibration import (
    PUBLISHED_RUNS,
    Sample,
    fit,
    generation_of,
    leave_one_out,
    leave_out,
    program_of,
)
from llama_jax.aot.step_time import CALIBRATED, Calibration, predict_step_time
from llama_jax.hardware import parse_pod
from llama_jax.recipe import load_recipe
from tests.aot.fakes import kernel, machine, program

TRUE = Calibration(cycles=1.15, kernels=0.41)


def sample(cycles, kernel_flops, factor=1.0):
    where = machine("v5p:4x4x8", fsdp=128)
    loaded = program(cycles=cycles, kernels=[kernel(flops=kernel_flops)])
    took = predict_step_time(loaded, where, TRUE).seconds * factor
    return Sample(name="", program=loaded, machine=where, seconds=took)


def test_the_fit_finds_what_made_the_samples():
    samples = [sample(4 * 10**9, 1e14), sample(20 * 10**9, 3e15), sample(9 * 10**9, 2e15)]
    assert fit(samples) == TRUE
    assert leave_one_out(samples) == pytest.approx([0, 0, 0], abs=1e-9)


def test_one_run_that_fits_no_other_is_seen_when_it_is_left_out():
    samples = [sample(4 * 10**9, 1e14) for _ in range(4)] + [sample(4 * 10**9, 1e14, 2.0)]
    *rest, odd = leave_one_out(samples)
    assert odd == pytest.approx(-0.5, abs=0.01)
    assert max(map(abs, rest)) < 0.01


def test_rows_of_one_kind_do_not_vouch_for_one_another():
    alike = [sample(4 * 10**9, 1e14, 1.5) for _ in range(2)]
    samples = [sample(20 * 10**9, 3e15), sample(9 * 10**9, 2e15), *alike]
    assert program_of(alike[0]) == program_of(alike[1]) != program_of(samples[0])
    assert {generation_of(one) for one in samples} == {"v5p"}
    *_, first, second = leave_out(samples, program_of)
    assert first == second == pytest.approx(1 / 1.5 - 1, abs=0.01)


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: run.name)
def test_published_runs_are_of_recipes_and_pods_that_exist(run):
    config = load_recipe(run.recipe)
    pod = parse_pod(run.topology)
    peak = pod.chip.bf16_flops
    assert config.model.max_seq_len >= run.seq_len
    # Model FLOPs over the peak, roughly: a slip in batch or unit would leave this range.
    from llama_jax.flops import train_flops_per_token

    mfu = run.tokens_per_second_per_chip * train_flops_per_token(config.model, run.seq_len, "full")
    assert 0.35 < mfu / peak < 0.75


def test_what_is_kept_in_the_repository_gives_the_calibration_and_its_promise():
    found = samples()
    assert fit(found) == CALIBRATED
    for errors in (
        leave_one_out(found),
        leave_out(found, program_of),
        leave_out(found, generation_of),
    ):
        assert sum(map(abs, errors)) / len(errors) <= 0.15
