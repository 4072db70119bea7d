"""The search for the fastest step that fits, with steps that cost nothing to compile."""

import dataclasses
import importlib.util
import json
import os

import jax
import pytest

from llama_jax.aot.compile import RefusedOption
from llama_jax.aot.machine import Machine
from llama_jax.aot.topology import prepare_environment
from llama_jax.cli.doctor import trials as trials_module
from llama_jax.cli.doctor import tune
from llama_jax.cli.doctor.run import Request, plan_request
from llama_jax.cli.doctor.trials import Attempts, Trial
from llama_jax.cli.doctor.tune import Price, pareto, search
from llama_jax.cli.main import main
from llama_jax.config.run import REMAT_POLICIES
from llama_jax.hardware import parse_pod
from llama_jax.pods import Slices, mesh_over
from llama_jax.recipe import load_recipe

LIMIT, STATE = 95.0, 12.0
NO_ROOM = {"fits": False, "needed_bytes": 2 * LIMIT, "limit_bytes": LIMIT}
FREE = Price(usd_per_chip_hour=0.0, goodput=1.0)
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
        "predicted": {"tokens_per_second_per_chip": rate, "mfu_causal": 0.5},
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


def laid_over(pod, recipe="llama2_70b", **changes):
    """A recipe with the mesh that it has on a pod."""
    config = dataclasses.replace(load_recipe(recipe), **changes)
    return dataclasses.replace(config, mesh=mesh_over(Slices(pod=pod, count=1)))


def trials(rows=1.0, topology="v5p:4x4x8", try_one=attempt, **changes):
    pod = parse_pod(topology)
    return list(search(laid_over(pod, **changes), pod, rows, try_one))


def test_every_policy_is_tried_with_ever_more_rows_until_memory_is_full():
    tried = [trial.overrides for trial in trials()]
    first = REMAT_POLICIES[0]
    assert tried[:4] == [f"{first} {rows} 1" for rows in (1, 2, 4, 8)]
    assert {name.split()[0] for name in tried} == set(REMAT_POLICIES)


def test_what_is_forecast_not_to_fit_is_not_compiled():
    over = [trial for trial in trials() if not trial.fits]
    assert all(trial.rows_per_chip == 1 for trial in over)


def test_the_best_few_are_then_split_in_other_ways():
    found = trials()
    whole = [trial for trial in found if trial.config.mesh.tensor == 1]
    splits = found[len(whole) :]
    best = sorted(whole, key=lambda trial: -trial.rate)[:2]
    told = [(trial.config.mesh.tensor, trial.config.compute.remat) for trial in splits]
    assert told == [(ways, one.config.compute.remat) for one in best for ways in (2, 4, 8)]
    for trial in splits:
        mesh = trial.config.mesh
        assert mesh.fsdp * mesh.fsdp_line * mesh.tensor == 128


def splits_of(found, axis):
    return {getattr(trial.config.mesh, axis) for trial in found}


def test_heads_that_do_not_divide_are_not_split():
    model = dataclasses.replace(load_recipe("llama2_70b").model, num_heads=66, num_kv_heads=6)
    model = dataclasses.replace(model, mlp_dim=28_672)
    assert splits_of(trials(model=model), "tensor") == {1, 2}


def test_long_rows_are_shared_by_devices():
    assert splits_of(trials(), "context") == {1}
    model = dataclasses.replace(load_recipe("llama2_70b").model, max_seq_len=32_768)
    data = dataclasses.replace(load_recipe("llama2_70b").data, seq_len=32_768)
    # Eight times the state of a device would be all of its memory.
    assert splits_of(trials(model=model, data=data), "context") == {1, 2, 4}


def test_gpus_of_several_nodes_may_hold_copies_of_the_model():
    assert splits_of(trials(topology="h100:32"), "replica") == {1, 2, 4}
    assert splits_of(trials(topology="h100:8"), "replica") == {1}


def test_a_copy_that_no_device_could_hold_is_not_compiled():
    def with_large_state(config, rows):
        trial = attempt(config, rows)
        if trial.fits:
            trial.answer["memory_bytes_per_device"]["arguments"] = LIMIT / 3
        return trial

    found = trials(topology="h100:32", try_one=with_large_state)
    assert splits_of(found, "replica") == {1, 2}


def test_where_no_device_holds_a_row_several_share_one():
    def only_parts_fit(config, rows):
        mesh = config.mesh
        fits = mesh.context * mesh.tensor > 1
        return dataclasses.replace(
            attempt(config, rows), answer=attempt(config, 1.0).answer if fits else NO_ROOM
        )

    found = trials(try_one=only_parts_fit)
    shared = [trial for trial in found if trial.fits]
    assert [(one.config.mesh.context, one.config.mesh.tensor) for one in shared] == [
        *((ways, 1) for ways in (2, 4, 8)),
        *((1, ways) for ways in (2, 4, 8)),
    ]
    assert [trial.rows_per_chip for trial in shared] == 2 * [1 / 2, 1 / 4, 1 / 8]


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

    def compile_some(request, options):
        compiled.append(request.config.compute.remat)
        if len(compiled) == 3:
            raise KeyboardInterrupt
        return attempt(request.config, request.rows_per_chip).answer

    monkeypatch.setattr(trials_module, "_compile", compile_some)
    monkeypatch.setattr(trials_module, "plan_request", fake_request)
    pod = parse_pod("v5p:4x4x8")
    config = laid_over(pod)
    with pytest.raises(KeyboardInterrupt):
        list(search(config, pod, 1.0, Attempts(pod, 1, tmp_path)))
    again = list(search(config, pod, 1.0, Attempts(pod, 1, tmp_path)))
    assert len(compiled) == len(again) + 1  # the one that was cut off
    assert [trial.rate for trial in again] == [trial.rate for trial in trials()]


def test_another_step_pod_or_option_is_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(trials_module, "_compile", lambda request, options: {"fits": False})
    monkeypatch.setattr(trials_module, "plan_request", fake_request)
    config, pod = load_recipe("llama2_70b"), parse_pod("v5p:4x4x8")
    Attempts(pod, 1, tmp_path)(config, 1.0)
    Attempts(parse_pod("v5p:4x4x4"), 1, tmp_path)(config, 1.0)
    Attempts(pod, 1, tmp_path, {"xla_some_option": "true"})(config, 1.0)
    Attempts(pod, 1, tmp_path)(config, 1.0)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(trials_module, "_source_hash", lambda: "changed")
    Attempts(pod, 1, tmp_path)(config, 1.0)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_step_that_the_compiler_chokes_on_loses_no_other(tmp_path, monkeypatch, capsys):
    def compile_some(request, options):
        if request.config.compute.remat == REMAT_POLICIES[0]:
            raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nand why")
        return attempt(request.config, request.rows_per_chip).answer

    monkeypatch.setattr(trials_module, "_compile", compile_some)
    monkeypatch.setattr(trials_module, "plan_request", fake_request)
    pod = parse_pod("v5p:4x4x8")
    found = list(search(laid_over(pod), pod, 1.0, Attempts(pod, 1, tmp_path)))
    assert [trial.failed for trial in found if trial.failed] == ["INTERNAL: Mosaic failed"]
    others = {trial.config.compute.remat for trial in found if not trial.failed}
    assert others == set(REMAT_POLICIES[1:])
    # What failed may do so for want of memory: it is tried again.
    assert len(list(tmp_path.iterdir())) == len(found) - 1
    tune._print(fake_request(found[0].config, pod, num_slices=1, rows_per_chip=1), found, FREE)
    assert "failed: INTERNAL: Mosaic failed" in capsys.readouterr().out


def test_an_option_that_no_compiler_has_ends_the_search(tmp_path, monkeypatch):
    def refuse(request, options):
        raise RefusedOption("--xla: the compiler does not take it")

    monkeypatch.setattr(trials_module, "_compile", refuse)
    monkeypatch.setattr(trials_module, "plan_request", fake_request)
    with pytest.raises(ValueError, match="--xla"):
        Attempts(parse_pod("v5p:4x4x8"), 1, tmp_path)(load_recipe("llama2_70b"), 1.0)


def test_a_price_is_that_of_the_whole_run():
    trial = dataclasses.replace(
        attempt(load_recipe("llama2_70b"), 1.0), answer={"run": {"chip_hours": 900.0}}
    )
    assert Price(usd_per_chip_hour=2.0, goodput=0.9).usd(trial) == pytest.approx(2000.0)


def test_the_text_of_many_programs_is_not_saved_in_one_file(capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    arguments = ["--topology", "v5e:2x2", "--tune", "--save-hlo", "step.hlo"]
    assert main(["doctor", "llama2_7b", *arguments]) == 2
    assert "leave one of the two out" in capsys.readouterr().err


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_search_of_real_programs_ends_with_one_to_use(capsys, monkeypatch, tmp_path):
    prepare_environment()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tune, "REMAT_POLICIES", ("full",))
    config = load_recipe("ladder_1m")
    sizes = {"num_layers": 1, "embed_dim": 256, "mlp_dim": 512, "vocab_size": 1024}
    heads = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 128}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **sizes, **heads),
        data=dataclasses.replace(config.data, seq_len=256),
    )
    pod = parse_pod("v5e:2x2")
    # Room for the rows to be doubled once.
    chip = dataclasses.replace(pod.chip, usable_bytes=21 * 2**20)
    request = plan_request(config, dataclasses.replace(pod, chip=chip), rows_per_chip=1)

    def tuned():
        code = tune.tune(
            request,
            rows=1,
            options={"xla_tpu_scoped_vmem_limit_kib": "16384"},
            price=Price(usd_per_chip_hour=1.2, goodput=0.9),
            as_json=True,
        )
        captured = capsys.readouterr()
        assert code == 0, captured.err
        tried = [line for line in captured.err.splitlines() if line.startswith("--rows")]
        return json.loads(captured.out), tried, captured.err.count("known")

    kept, tried, _ = tuned()
    assert kept[0]["usd"] > 0 and kept[0]["peak_bytes"] <= chip.usable_bytes
    assert kept[0]["predicted"]["tokens_per_second_per_chip"] > 0
    begun = ["--rows-per-chip 1", "--rows-per-chip 2"]
    assert [" ".join(line.split()[:2]) for line in tried[:2]] == begun
    assert len(tried) == 4 and all("--mesh.tensor 2" in line for line in tried[2:])
    assert tuned() == (kept, tried, 4)
