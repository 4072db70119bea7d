"""A step over memory ends with 2, whatever the compiler thinks of it, and its advice works."""

import json
import os
import re

import jax
import pytest

from llama_jax.aot.compile import CompiledProgram, DoesNotFit
from llama_jax.cli.doctor import run
from llama_jax.cli.main import main
from llama_jax.config import AdamW
from llama_jax.flops import count_params, state_bytes
from llama_jax.recipe import load_recipe
from llama_jax.sharding import num_shards, use_layout
from llama_jax.train.feed import check_batch_split
from tests.aot.fakes import memory
from tests.aot.written import loop

TEXT = loop()


@pytest.fixture
def compile_with(monkeypatch):
    """Has the doctor compile for CPUs a step that takes `row_gib` for each row of a device."""
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def lower(config, mesh, batch_size):
        with use_layout(mesh):
            check_batch_split(config, batch_size)
            state = state_bytes(count_params(config.model), config.optimizer)
            held = state / num_shards("embed") / num_shards("mlp") / 2**30
            rows = batch_size / mesh.size
        return held, rows

    def arrange(row_gib):
        def compile_program(lowered, options):
            held, rows = lowered
            return CompiledProgram(text=TEXT, memory=memory(held, held + rows * row_gib), seconds=0)

        monkeypatch.setattr(run, "compile_program", compile_program)

    monkeypatch.setattr(run, "lower_step", lower)
    monkeypatch.setattr(
        run, "devices_of", lambda pod, _: jax.devices()[: pod.count * pod.chip.devices_per_chip]
    )
    return arrange


def doctor(capsys, *arguments):
    code = main(["doctor", "ladder_300m", *arguments, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_a_gpu_whose_compiler_counts_no_memory_is_refused_too(capsys, compile_with):
    compile_with(row_gib=200)
    code, answer, told = doctor(capsys, "--topology", "h100:8", "--rows-per-chip", "1")
    assert code == 2 and not answer["fits"]
    assert answer["needed_bytes"] > answer["limit_bytes"] == int(0.75 * 84_978_434_048)
    assert "GiB too many" in told


def test_temporaries_that_alone_are_too_many_need_the_state_as_well(
    capsys, compile_with, monkeypatch
):
    def compile_program(lowered, options):
        raise DoesNotFit("temporaries", 20 * 2**30, 16 * 2**30, without_arguments=True)

    compile_with(row_gib=1)
    monkeypatch.setattr(run, "compile_program", compile_program)
    _, answer, _ = doctor(capsys, "--topology", "v5e:2x4", "--rows-per-chip", "8")
    state = state_bytes(count_params(load_recipe("ladder_300m").model), AdamW(peak_lr=1e-3)) / 8
    assert answer["needed_bytes"] == pytest.approx(20 * 2**30 + state, rel=1e-6)


def test_what_jax_leaves_of_a_gpu_is_told_where_it_would_do(capsys, compile_with):
    compile_with(row_gib=65)
    _, _, told = doctor(capsys, "--topology", "h100:8", "--rows-per-chip", "1")
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in told


@pytest.mark.parametrize(
    ("row_gib", "arguments", "advised"),
    [
        (3, ["--topology", "v5e:2x4", "--rows-per-chip", "8"], "--rows-per-chip 4"),
        # A row a chip is the least that a mesh without another axis takes.
        (18, ["--topology", "v5e:2x4", "--rows-per-chip", "1"], "--mesh.context 2"),
        (
            20,
            ["--topology", "v5e:2x4", "--rows-per-chip", "1", "--data.seq-len", "128"],
            "--mesh.tensor 4",
        ),
        (13, ["--topology", "v5e:1x1", "--rows-per-chip", "1"], "--topology v5e:2x2"),
        (190, ["--topology", "tpu7x:2x2x1", "--rows-per-chip", "4"], "--rows-per-chip 0.5"),
        (40, ["--topology", "h100:4", "--rows-per-chip", "2"], "--rows-per-chip 1"),
    ],
)
def test_advice_passes_the_checks_and_fits(capsys, compile_with, row_gib, arguments, advised):
    compile_with(row_gib)
    code, answer, _ = doctor(capsys, *arguments)
    assert code == 2
    assert advised in answer["advice"]
    first = re.search(r"(--[^)]*?\d) (or|should)", answer["advice"])
    assert first, answer["advice"]
    taken = dict(re.findall(r"(--\S+) (\S+)", first[1]))
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    code, answer, told = doctor(
        capsys, *(word for pair in (given | taken).items() for word in pair)
    )
    assert code == 0, told


@pytest.mark.parametrize(
    ("topology", "told"),
    [("v5e:2x4", "mesh: --mesh.fsdp 2 --mesh.fsdp-line 4, which"), ("h100:8", "")],
)
def test_a_mesh_that_names_no_split_is_that_of_pod(capsys, compile_with, topology, told):
    compile_with(row_gib=1)
    code, answer, said = doctor(capsys, "--topology", topology, "--rows-per-chip", "1")
    assert code == 0 and told in said and bool(told) == ("mesh:" in said)
    assert answer["mesh"]["fsdp"] * answer["mesh"]["fsdp_line"] == 8
    code, answer, said = doctor(
        capsys, "--topology", topology, "--rows-per-chip", "1", "--mesh.fsdp", "8"
    )
    assert answer["mesh"]["fsdp"] == 8 and "mesh:" not in said


@pytest.mark.parametrize(
    ("overrides", "bytes_per_param"), [([], 12), (["--optimizer.state-dtype", "bfloat16"], 8)]
)
def test_a_checkpoint_has_the_state_as_the_optimizer_keeps_it(
    capsys, compile_with, overrides, bytes_per_param
):
    compile_with(row_gib=1)
    _, answer, _ = doctor(capsys, "--topology", "h100:8", "--rows-per-chip", "1", *overrides)
    assert answer["checkpoint_bytes"] / bytes_per_param == pytest.approx(304e6, rel=0.01)
    # Arguments are those of the state, and nothing is said to be held twice.
    assert not [one for one in answer["findings"] if "more than once" in one["what"]]
