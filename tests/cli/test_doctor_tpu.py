"""Steps compiled for TPUs that are not here: what the doctor says, and what must not get worse.

`golden_programs.json` has what each program was when it was last looked at. A change that makes
one worse fails here; one that makes it better, or other on purpose, writes it anew:

    .venv-tpu/bin/python -m tests.cli.test_doctor_tpu
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.tpu
GOLDEN = Path(__file__).parent / "golden_programs.json"

SMALL = [
    "llama2_7b",
    *("--model.num-layers", "4", "--model.embed-dim", "512", "--model.mlp-dim", "1536"),
    *("--model.num-heads", "4", "--model.num-kv-heads", "4", "--model.vocab-size", "4096"),
    *("--data.seq-len", "1024", "--rows-per-chip", "2"),
]
PROGRAMS = {
    "v4": [*SMALL, "--topology", "v4:2x2x1", "--mesh.fsdp", "4"],
    "v5e": [*SMALL, "--topology", "v5e:2x4", "--mesh.fsdp", "4", "--mesh.fsdp-line", "2"],
    "v5p": [*SMALL, "--topology", "v5p:2x2x1", "--mesh.fsdp", "4"],
    "v6e": [*SMALL, "--topology", "v6e:2x4", "--mesh.fsdp", "4", "--mesh.fsdp-line", "2"],
    "tpu7x": [*SMALL, "--topology", "tpu7x:2x2x1", "--mesh.fsdp", "8"],
    "two slices": [*SMALL, "--topology", "v5e:2x2", "--slices", "2"],
    "context": [
        *(*SMALL, "--topology", "v5e:2x4", "--mesh.fsdp", "4", "--mesh.context", "2"),
        *("--compute.context", "all_to_all"),
    ],
    "tensor": [*SMALL, "--topology", "v5e:2x4", "--mesh.fsdp", "4", "--mesh.tensor", "2"],
    "sum": [
        *(*SMALL, "--topology", "v5e:2x4", "--mesh.fsdp", "4", "--mesh.fsdp-line", "2"),
        *("--compute.gradients", "sum"),
    ],
    "stages": [*SMALL, "--topology", "v5e:2x2", "--slices", "2", "--mesh.stage", "2"],
    "pod": [*SMALL, "--pod", "v5e:8x8"],
}


def doctor(arguments, folder):
    """Runs the command as a person would; its threads, caches and libtpu are its own."""
    return subprocess.run(
        [sys.executable, "-m", "llama_jax.cli.main", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder), "COLUMNS": "100"},
    )


def count(answer):
    """What is compared of a program."""
    moved, launched = Counter(), Counter()
    for one in answer["program"]["collectives"]:
        what = f"{one['kind']} for {one['stands_for']}" if one["stands_for"] else one["kind"]
        moved[f"{what}, {one['exposure']}, MB"] += one["bytes"] / 1e6
        launched[f"{what}, {one['exposure']}, launches"] += one["count"]
    kernels = {kernel["name"]: kernel["launches"] for kernel in answer["program"]["kernels"]}
    megabytes = {name: round(value, 1) for name, value in sorted(moved.items())}
    gathers = [one for one in answer["program"]["collectives"] if one["kind"] == "all-gather"]
    bare = sum(one["bytes"] for one in gathers if one["exposure"] == "exposed")
    return {
        "mesh": {name: size for name, size in answer["mesh"].items() if size > 1},
        "remat": answer["remat"],
        "findings": sorted({one["what"] for one in answer["findings"]}),
        "gathered bytes that are exposed": round(bare / sum(one["bytes"] for one in gathers), 3),
        "M cycles": round(answer["program"]["cycles"] / 1e6, 1),
        "peak MiB": round(answer["memory_bytes_per_device"]["peak"] / 2**20, 1),
        "kernels": kernels,
        "collectives": megabytes | dict(sorted(launched.items())),
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_gets_worse(name, tmp_path):
    done = doctor([*PROGRAMS[name], "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    kernels = {one["name"]: one["launches"] for one in answer["program"]["kernels"]}
    # A stage has two of the layers, for each of four pieces, and for one that comes to nothing.
    backward = 2 * (4 + 1) if name == "stages" else 4
    assert sum(times for kernel, times in kernels.items() if "dkv" in kernel) == backward
    assert 0.0 < answer["predicted"]["mfu_causal"] < 0.9
    now, was = count(answer), json.loads(GOLDEN.read_text())[name]
    assert now["kernels"] == was["kernels"]
    assert (now["mesh"], now["remat"]) == (was["mesh"], was["remat"])
    share = "gathered bytes that are exposed"
    assert now[share] <= was[share] + 0.02
    assert not set(now["findings"]) - set(was["findings"])
    assert now["M cycles"] <= 1.02 * was["M cycles"]
    assert now["peak MiB"] <= 1.05 * was["peak MiB"]
    for what, value in now["collectives"].items():
        assert value <= 1.02 * was["collectives"].get(what, 0), what


def test_7b_on_32_chips_of_v5p_is_as_small_and_fast_as_promised(tmp_path):
    done = doctor(["llama2_7b", "--pod", "v5p:2x4x4", "--rows-per-chip", "4", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["program"]["cycles"] <= 3.9e9
    assert answer["memory_bytes_per_device"]["peak"] <= 30 * 2**30
    kernels = {one["name"]: one["launches"] for one in answer["program"]["kernels"]}
    assert [launches for name, launches in kernels.items() if "fwd" in name] == [32]
    whole = [one for one in answer["program"]["collectives"] if one["kind"] == "all-reduce"]
    assert not [one for one in whole if one["stands_for"] == "all-gather"]
    assert sum(one["bytes"] for one in whole) < 1e9  # of 13.5 GB of gradients


def test_what_is_offloaded_goes_to_the_host_once_and_back_once(tmp_path):
    done = doctor([*PROGRAMS["v5e"], "--compute.remat", "offload", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    sent = Counter()
    for one in answer["program"]["transfers"]:
        sent[one["direction"]] += one["bytes"]
    # Of 4 layers and 2,048 tokens each: queries, keys, values and what attention mixes (512 wide)
    # and two of the MLP (1,536) in bfloat16, and the log-sum-exp of 4 heads in float32.
    by_hand = 4 * 2048 * (2 * (4 * 512 + 2 * 1536) + 4 * 4)
    assert sent == {"to host": by_hand, "from host": by_hand}
    assert answer["memory_bytes_per_device"]["host"] == by_hand
    assert answer["predicted"]["host_seconds"] == by_hand / 16e9
    kernels = {one["name"]: one["launches"] for one in answer["program"]["kernels"]}
    assert [times for name, times in kernels.items() if "fwd" in name] == [4]


def test_inputs_of_blocks_that_are_offloaded_are_not_kept_on_the_chip(tmp_path):
    answers = {}
    for policy in ("full", "offload_inputs"):
        done = doctor([*PROGRAMS["v5e"], "--compute.remat", policy, "--json"], tmp_path)
        assert done.returncode == 0, done.stderr
        answers[policy] = json.loads(done.stdout)
    # Of 4 layers and 2,048 tokens each, 512 wide in bfloat16.
    by_hand = 4 * 2048 * 512 * 2
    full, offloaded = answers["full"], answers["offload_inputs"]
    sent = Counter()
    for one in offloaded["program"]["transfers"]:
        sent[one["direction"]] += one["bytes"]
    assert sent == {"to host": by_hand, "from host": by_hand}
    assert offloaded["memory_bytes_per_device"]["host"] == by_hand
    # The program is otherwise that of full remat.
    for counted in ("matmul_flops", "kernels"):
        assert offloaded["program"][counted] == full["program"][counted]


def test_a_page_of_a_hundred_columns_tells_it_all(tmp_path):
    text = tmp_path / "step.hlo"
    done = doctor([*PROGRAMS["v5e"], "--save-hlo", str(text)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    for told in ("Fits:", "(a prediction)", "MFU", "Communication", "Whole run", "Findings"):
        assert told in done.stdout
    assert "! model.num_layers" in done.stdout or "No published model" in done.stdout
    assert text.read_text().startswith("HloModule")
    assert "lowering: " in done.stderr
    assert "compiling: " in done.stderr


def test_a_step_over_memory_is_refused_with_what_should_fit(tmp_path):
    small = [*SMALL, "--compute.remat", "none", "--topology", "v5e:1x1", "--rows-per-chip", "256"]
    done = doctor([*small, "--json"], tmp_path)
    assert done.returncode == 2, done.stdout
    assert "GiB too many" in done.stderr
    answer = json.loads(done.stdout)
    assert not answer["fits"]
    assert answer["needed_bytes"] > answer["limit_bytes"]
    assert "--rows-per-chip" in answer["advice"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mesh.tensor", "3"], "mesh.tensor=3"),
        (["--mesh.fsdp", "4"], "mesh.fsdp=4"),
        (["--rows-per-chip", "0.5"], "cannot be split over 8 devices"),
        (["--mesh.fsdp", "1", "--mesh.tensor", "8", "--model.num-kv-heads", "4"], "must be a"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_by_name(arguments, complaint, tmp_path):
    done = doctor([*SMALL, "--topology", "v5e:2x4", *arguments], tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.long
def test_a_recipe_that_a_plan_writes_is_compiled_for_its_chips(tmp_path):
    planned = [
        *("plan", "--params", "5e6", "--chips", "v5e:2x2", "--vocab-size", "4096"),
        *("--write", str(tmp_path / "mine.py"), "--compile-minutes", "60", "--json"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "llama_jax.cli.main", *planned],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)["compiled"]
    assert compiled["fits"] is True, compiled
    assert compiled["predicted"]["step_seconds"] > 0
    assert "compiling for v5e:2x2" in done.stderr


def write_golden(only=""):
    """Compiles all programs, and keeps what they are now."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    for name, arguments in PROGRAMS.items():
        if only in ("", name):
            done = doctor([*arguments, "--json"], Path("/tmp"))
            print(name, done.stderr[-300:], flush=True)
            golden[name] = count(json.loads(done.stdout))
            GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    write_golden(*sys.argv[1:])
