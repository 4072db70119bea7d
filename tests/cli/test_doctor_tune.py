"""The search for the fastest step that fits, with steps that cost nothing to compile."""

import dataclasses

import pytest

from llama_jax.aot.machine import Machine
from llama_jax.cli.doctor import tune
from llama_jax.cli.doctor.run import Request
from llama_jax.cli.doctor.tune import Trial, pareto, search
from llama_jax.config.run import REMAT_POLICIES
from llama_jax.hardware import parse_pod
from llama_jax.recipe import load_recipe

LIMIT, STATE = 95.0, 12.0
ROWS_GIB = {policy: 6.0 * 2**number for number, policy in enumerate(REMAT_POLICIES)}


def attempt(config, rows):
    """Memory grows with the rows, and speed with them and with what is not recomputed."""
    policy = config.compute.remat
    peak = STATE + rows * ROWS_GIB[policy] / config.mesh.tensor
    rate = (1 + 0.1 * REMAT_POLICIES.index(policy)) * rows / (rows + 1)
    rate *= 0.8 if config.mesh.tensor > 1 else 1.0
    fits = {
        "fits": True,
        "memory_bytes_per_device": {"arguments": STATE, "peak": peak, "limit": LIMIT},
        "predicted": {"tokens_per_second_per_chip": rate},
    }
    too_large = {"fits": False, "needed_bytes": peak, "limit_bytes": LIMIT}
    return Trial(
        overrides=f"{policy} {rows:g} {config.mesh.tensor}",
        config=config,
        rows_per_chip=rows,
        answer=fits if peak <= LIMIT else too_large,
    )


def fake_request(config, pod, *, num_slices, rows_per_chip):
    train = dataclasses.replace(config.train, batch_size=int(rows_per_chip * pod.count))
    return Request(
        config=dataclasses.replace(config, train=train),
        machine=Machine(pod=pod, num_slices=num_slices, mesh_shape={}),
        mesh=None,
        tokens=0,
    )


def trials(rows=1.0, recipe="llama2_70b"):
    return list(search(load_recipe(recipe), rows, attempt))


def test_every_policy_is_tried_with_ever_more_rows_until_memory_is_full():
    tried = [trial.overrides for trial in trials()]
    first = REMAT_POLICIES[0]
    assert tried[:4] == [f"{first} {rows} 1" for rows in (1, 2, 4, 8)]
    assert {name.split()[0] for name in tried} == set(REMAT_POLICIES)


def test_what_is_forecast_not_to_fit_is_not_compiled():
    over = [trial for trial in trials() if not trial.fits]
    assert all(trial.rows_per_chip == 1 for trial in over)


def test_the_fastest_is_then_split_over_more_devices():
    found = trials()
    *_, two, four, eight = found
    assert [trial.config.mesh.tensor for trial in (two, four, eight)] == [2, 4, 8]
    best = max((trial for trial in found if trial.config.mesh.tensor == 1), key=lambda t: t.rate)
    assert two.config.compute.remat == best.config.compute.remat


def test_heads_that_do_not_divide_are_not_split():
    model = dataclasses.replace(load_recipe("llama2_70b").model, num_heads=66, num_kv_heads=6)
    config = dataclasses.replace(load_recipe("llama2_70b"), model=model)
    splits = {trial.config.mesh.tensor for trial in search(config, 1.0, attempt)}
    assert splits == {1, 2}


@pytest.mark.parametrize("rows", [1.0, 2.0])
def test_what_is_kept_is_beaten_by_nothing(rows):
    fitting = [trial for trial in trials(rows) if trial.fits]
    kept = pareto(fitting)
    assert kept[0].rate == max(trial.rate for trial in fitting)
    assert kept[-1].peak == min(trial.peak for trial in fitting)
    for trial in fitting:
        better = [other for other in kept if other.rate >= trial.rate and other.peak <= trial.peak]
        assert better


def test_a_search_that_was_stopped_compiles_nothing_twice(tmp_path, monkeypatch):
    compiled = []

    def compile_some(request):
        compiled.append(request.config.compute.remat)
        if len(compiled) == 3:
            raise KeyboardInterrupt
        return attempt(request.config, request.rows_per_chip).answer

    monkeypatch.setattr(tune, "_compile", compile_some)
    monkeypatch.setattr(tune, "plan_request", fake_request)
    config, pod = load_recipe("llama2_70b"), parse_pod("v5p:4x4x8")
    attempts = tune.Attempts(pod, 1, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(search(config, 1.0, attempts))
    again = list(search(config, 1.0, tune.Attempts(pod, 1, tmp_path)))
    assert len(compiled) == len(again) + 1  # the one that was cut off
    assert [trial.rate for trial in again] == [trial.rate for trial in trials()]


def test_another_step_or_pod_is_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "_compile", lambda request: {"fits": False})
    monkeypatch.setattr(tune, "plan_request", fake_request)
    config = load_recipe("llama2_70b")
    tune.Attempts(parse_pod("v5p:4x4x8"), 1, tmp_path)(config, 1.0)
    tune.Attempts(parse_pod("v5p:4x4x4"), 1, tmp_path)(config, 1.0)
    monkeypatch.setattr(tune, "_source_hash", lambda: "changed")
    tune.Attempts(parse_pod("v5p:4x4x8"), 1, tmp_path)(config, 1.0)
    assert len(list(tmp_path.iterdir())) == 3
