"""`llama-jax convert from-hf`: what is understood arrives bit for bit, anything else is refused."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from llama_jax.cli.convert.imported_run import run_config
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config, read_model
from llama_jax.config import MeshConfig
from llama_jax.convert import mapping
from llama_jax.convert.hugging_face_config import read_model_config
from llama_jax.convert.json_values import MAX_JSON_BYTES
from llama_jax.convert.safetensors_reader import read_folder
from llama_jax.convert.stored import pieces
from llama_jax.recipe import to_json
from llama_jax.sharding import make_mesh, use_layout
from tests.convert.hf_folder import (
    DTYPES,
    FAMILIES,
    TINY,
    safetensors_bytes,
    save,
    with_header,
    write_hf,
)


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def read_params(run_dir) -> dict[str, np.ndarray]:
    with use_layout(make_mesh(MeshConfig(), devices=jax.local_devices()[:1])):
        saved = read_model(run_dir, read_config(run_dir), None)
    leaves = nnx.to_flat_state(saved.params)
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("num_files", [1, 3])
def test_a_checkpoint_has_the_values_of_the_files(tmp_path, dtype, num_files):
    tensors = write_hf(tmp_path / "hf", TINY, dtype, num_files=num_files)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert read_config(tmp_path / "run").model == TINY
    expected = mapping.to_ours(TINY, lambda name: tensors[name].astype(np.float32))
    params = read_params(tmp_path / "run")
    assert params.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(params[path], value, err_msg=path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_comes_back_bit_for_bit(tmp_path, model, dtype):
    tensors = write_hf(tmp_path / "hf", model, dtype)
    arguments = ["--pad-vocab-to-multiple", 64]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", *arguments) == 0
    assert read_config(tmp_path / "run").model == dataclasses.replace(model, vocab_size=128)
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", "--without-tokenizer") == 0
    assert read_model_config(tmp_path / "back")[0] == model
    back = read_folder(tmp_path / "back")
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == dtype
        assert b"".join(map(bytes, pieces(back[name]))) == value.tobytes(), name


def test_padding_rows_are_zeros(tmp_path):
    tensors = write_hf(tmp_path / "hf", TINY)
    arguments = ["--pad-vocab-to-multiple", 64]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", *arguments) == 0
    table = read_params(tmp_path / "run")["embed.table"]
    assert table.shape == (128, TINY.embed_dim)
    np.testing.assert_array_equal(table[:70], tensors["model.embed_tokens.weight"])
    assert not table[70:].any()


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CHANGES = {
    "attention_bias": (True, "attention_bias=True must be False: LLaMA has no biases"),
    "mlp_bias": (True, "mlp_bias=True must be False"),
    "sliding_window": (4096, "sliding_window=4096 must be None"),
    "model_type": ("mistral", "model_type='mistral' must be 'llama': only the LLaMA"),
    "architectures": (["LlamaForSequenceClassification"], "must be .'LlamaForCausalLM'"),
    "hidden_act": ("gelu", "hidden_act='gelu' must be 'silu'"),
    "quantization_config": ({"bits": 4}, "dequantize the model first"),
    "attention_multiplier": (2.0, "attention_multiplier=2.0 is an attribute that is not handled"),
    "rope_scaling": (
        {"rope_type": "yarn", "factor": 2.0},
        "has the type 'yarn'; there are default, linear, llama3 here",
    ),
    "rope_parameters": (
        {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        "rope_parameters.partial_rotary_factor=0.5 is not handled",
    ),
    "rope_theta": (5e5, "contradict each other"),
    "num_hidden_layers": (2, "layers.2.* has no place in the LLaMA of 2 layers"),
    "hidden_size": ("48", "hidden_size='48' must be a positive whole number"),
    "intermediate_size": (41, "config.json says"),
    "rms_norm_eps": (None, "rms_norm_eps=None must be a number"),
    "tie_word_embeddings": (True, "lm_head.weight is not model.embed_tokens.weight"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_that_is_not_understood_is_refused_by_name(tmp_path, capfd, name):
    value, complaint = CHANGES[name]
    change_config(tmp_path, {name: value})
    refused(tmp_path, capfd, complaint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": ...}, "model_type is missing; it must be 'llama'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings='no' must be true or false"),
        ({"head_dim": None, "hidden_size": 49}, "hidden_size=49 is no multiple of num_attention"),
        ({"head_dim": 10.0}, "head_dim=10.0 must be a positive whole number"),
        ({"num_key_value_heads": 4}, "model.num_kv_heads=4 must divide"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan must be a number"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps=10*0 must be a number"),
        ({"rms_norm_eps": 0}, "model.norm_eps must be positive"),
        ({"rope_parameters": ["x"]}, "rope_parameters=.'x'. must be an object or null"),
        ({"rope_parameters": {"rope_type": [1]}}, r"has the type \[1\]; there are default"),
        (
            {"rope_parameters": {"rope_type": "linear"}},
            "rope_parameters.factor=None must be a numb",
        ),
        (
            {"rope_parameters": LLAMA3 | {"factor": "8"}},
            "rope_parameters.factor='8' must be a numb",
        ),
        (
            {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192.7}},
            "original_max_position_embeddings=8192.7 must be a positive whole number",
        ),
        (
            {"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}},
            "high_freq_factor=1.0 must exceed",
        ),
    ],
)
def test_values_of_another_type_or_size_are_refused_in_a_line(tmp_path, capfd, change, complaint):
    change_config(tmp_path, change)
    refused(tmp_path, capfd, complaint)


def change_config(folder, changes):
    """Writes a model whose config.json is changed; `...` takes an attribute out."""
    write_hf(folder / "hf", TINY)
    path = folder / "hf" / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def refused(tmp_path, capfd, complaint):
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 2
    message = capfd.readouterr().err
    assert re.search(complaint, message), message
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_config_of_transformers_4_is_read(tmp_path):
    write_hf(tmp_path / "hf", FAMILIES["LLaMA-3.1"])
    path = tmp_path / "hf" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["head_dim"], config["dtype"]
    path.write_text(json.dumps(config))
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert read_config(tmp_path / "run").model == FAMILIES["LLaMA-3.1"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"model.layers.0.self_attn.q_proj.bias": np.zeros(60, np.float32)},
            r"q_proj\.bias .*no pl",
        ),
        ({"model.norm.weight": None}, r"model\.norm\.weight is missing"),
        ({"model.norm.weight": np.zeros(47, np.float32)}, r"norm\.weight has the shape \(47,\)"),
        ({"model.norm.weight": np.full(48, np.nan, np.float32)}, r"norm\.weight has a value that"),
        ({"model.norm.weight": np.full(48, np.inf, np.float32)}, r"norm\.weight has a value that"),
        ({"model.norm.weight": np.zeros(48, np.float64)}, r"norm\.weight is 'F64'"),
        (
            {"model.layers.1.input_layernorm.weight": np.zeros(48, np.float16)},
            "all must have one dtype",
        ),
        (
            {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(5, np.float32)},
            "does not hold the wavelengths",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, capfd, change, complaint):
    tensors = write_hf(tmp_path / "hf", TINY)
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    save(tmp_path / "hf", changed)
    refused(tmp_path, capfd, complaint)


def test_saved_wavelengths_and_a_copied_output_table_are_left_out(tmp_path, capfd):
    tensors = write_hf(tmp_path / "hf", FAMILIES["LLaMA-3.2"], "float16")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    inverse = (5e5 ** -(np.arange(0, 8, 2) / 8)).astype(np.float16)
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = inverse
    save(tmp_path / "hf", tensors)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", "--json") == 0
    assert len(json.loads(capfd.readouterr().out)["left_out"]) == 2


def test_damaged_files_are_refused(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    path = tmp_path / "hf" / "model.safetensors"
    whole = path.read_bytes()
    for damaged, complaint in {
        whole[:-1]: "its header says",
        whole + b"\0": "its header says",
        whole[:5]: "cannot be in a file of 5",
        b"\xff" * 8 + whole[8:]: "a header of 18,446,744,073,709,551,615 bytes cannot be",
        whole[:8] + b"[" + whole[9:]: "holds no valid JSON",
        with_header([]): "holds no JSON object",
        whole[:8] + b"[" * 90_000: "its header|no valid JSON|cannot be",
    }.items():
        path.write_bytes(damaged)
        refused(tmp_path, capfd, complaint)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"shape": [48], "data_offsets": [0, 10**15]}, "needs 192"),
        ({"shape": [10**15], "data_offsets": [0, 4 * 10**15]}, "its header says"),
        ({"shape": [2**62, 2**62], "data_offsets": [0, 192]}, "header's entry"),
        ({"shape": [-48], "data_offsets": [0, 192]}, "header's entry"),
        ({"shape": [48], "data_offsets": [8, 200]}, "begins at byte"),
        ({"shape": 48, "data_offsets": [0, 192]}, "header's entry"),
    ],
)
def test_hostile_headers_are_refused_without_memory(tmp_path, capfd, entry, complaint):
    write_hf(tmp_path / "hf", TINY)
    header = {"model.norm.weight": {"dtype": "F32"} | entry}
    (tmp_path / "hf" / "model.safetensors").write_bytes(with_header(header) + bytes(192))
    refused(tmp_path, capfd, complaint)


NAMES = b",".join(b'"%d":{}' % number for number in range(MAX_JSON_BYTES // 12))
HOSTILE = {
    "many values": b'{"a":[' + b"{}," * (MAX_JSON_BYTES // 3 - 10) + b"{}]}",
    "many names": b"{" + NAMES + b"}",
    "more than is read": b'{"__metadata__":{"a":"' + b" " * 40_000_000 + b'"}}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_of_hostile_sizes_do_not_exhaust_memory(tmp_path, kind):
    write_hf(tmp_path / "hf", TINY)
    path = tmp_path / "hf" / "model.safetensors"
    path.write_bytes(len(HOSTILE[kind]).to_bytes(8, "little") + HOSTILE[kind])
    done = run_within(400 << 20, "from-hf", tmp_path / "hf", tmp_path / "run")
    assert done.returncode == 2, done.stderr[-2000:]
    assert str(path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def run_within(more_bytes: int, *arguments):
    """Runs a conversion that may take no more than so many bytes beside Python's libraries."""
    program = """
import resource, sys
from llama_jax.cli.main import main
import llama_jax.cli.convert, llama_jax.convert.hugging_face_import
used = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
sys.exit(main(["convert", *sys.argv[2:]]))
"""
    command = [sys.executable, "-c", program, str(more_bytes), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "outside of its folder"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors is missing"),
        ({"weight_map": {"a": "model.safetensors"}}, "which the index places in no file"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, capfd, index, complaint):
    write_hf(tmp_path / "hf", TINY)
    if "model.safetensors" not in index["weight_map"].values():
        (tmp_path / "hf" / "model.safetensors").unlink()
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, capfd, complaint)


def test_an_index_names_what_its_files_hold(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY, num_files=2)
    path = tmp_path / "hf" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.bias"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    refused(tmp_path, capfd, "names model.norm.bias, which no file holds")


def test_a_folder_without_weights_is_refused(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    (tmp_path / "hf/model.safetensors").rename(tmp_path / "hf/pytorch_model.bin")
    refused(tmp_path, capfd, "has neither model.safetensors nor model.safetensors.index.json")


@pytest.mark.parametrize(
    ("files", "right"),
    [
        pytest.param(("params.json",), "from-meta", id="Meta's"),
        pytest.param(("config.json", "checkpoints/5"), "to-hf", id="a run's"),
    ],
)
def test_a_folder_of_another_layout_is_told_its_command(tmp_path, capfd, files, right):
    for name in files:
        (tmp_path / "given" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "given" / name).write_text("{}")
    assert convert("from-hf", tmp_path / "given", tmp_path / "run") == 2
    assert f"use `llama-jax convert {right}`" in capfd.readouterr().err


def test_a_name_that_occurs_twice_is_refused(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    entry = '"model.norm.weight": {"dtype": "F32", "shape": [48], "data_offsets": [0, 192]}'
    text = f"{{{entry}, {entry}}}".encode()
    data = len(text).to_bytes(8, "little") + text + bytes(192)
    (tmp_path / "hf/model.safetensors").write_bytes(data)
    refused(tmp_path, capfd, "holds no valid JSON .a name occurs twice")


def test_padding_to_nothing_is_refused(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    arguments = [tmp_path / "hf", tmp_path / "run", "--pad-vocab-to-multiple", 0]
    assert convert("from-hf", *arguments) == 2
    assert "--pad-vocab-to-multiple=0 must be positive" in capfd.readouterr().err


def test_a_training_config_of_another_model_is_refused(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    config = run_config("other", FAMILIES["LLaMA-3"])
    (tmp_path / "hf/training_config.json").write_text(to_json(config))
    refused(tmp_path, capfd, "training_config.json is of another model than config.json")


def test_a_flipped_bit_is_found_by_the_certificate(tmp_path, capfd):
    write_hf(tmp_path / "first", TINY)
    assert convert("from-hf", tmp_path / "first", tmp_path / "run") == 0
    certificate = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert set(certificate["files"]) == {
        path.relative_to(tmp_path / "run").as_posix()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and path.name != "certificate.json"
    }
    (tmp_path / "first").rename(tmp_path / "hf")
    (tmp_path / "run" / "certificate.json").rename(tmp_path / "hf" / "certificate.json")
    path = tmp_path / "hf" / "model.safetensors"
    flipped = bytearray(path.read_bytes())
    flipped[-5] ^= 1
    path.write_bytes(flipped)
    shutil.rmtree(tmp_path / "run")
    refused(tmp_path, capfd, "is not what the certificate beside it says")


def test_a_folder_in_use_is_refused_and_untouched(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 2
    assert "is already in use" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_dry_run_writes_nothing(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", "--dry-run", "--json") == 0
    plan = json.loads(capfd.readouterr().out)
    size = sum(stored.num_bytes for stored in read_folder(tmp_path / "hf").values())
    assert plan["bytes_written"] == plan["bytes_read"] == size
    assert not (tmp_path / "run").exists()


def test_the_writer_of_these_tests_writes_what_the_library_reads(tmp_path):
    from safetensors.numpy import load

    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float16)}
    for name, value in load(safetensors_bytes(tensors)).items():
        np.testing.assert_array_equal(value, tensors[name])


def test_a_layer_that_changed_since_is_not_exported(tmp_path, capfd):
    write_hf(tmp_path / "hf", TINY)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    state = tmp_path / "run" / "checkpoints" / "0" / "state"
    path = state / "params.blocks.mlp.up" / "c.1.0.0"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", "--without-tokenizer") == 2
    assert "params.blocks.mlp.up/c.1.0.0 has the CRC-32" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]
    assert convert("check", tmp_path / "hf", tmp_path / "run") == 2
    assert "c.1.0.0 has the CRC-32" in capfd.readouterr().err
    (tmp_path / "run" / "certificate.json").unlink()
    assert convert("check", tmp_path / "run", tmp_path / "hf") == 2


def test_an_import_is_exported_rounded(tmp_path):
    model = FAMILIES["LLaMA-2 7B and 13B"]
    tensors = write_hf(tmp_path / "hf", model)
    arguments = ["--pad-vocab-to-multiple", 64]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", *arguments) == 0
    arguments = ["--without-tokenizer", "--dtype", "bfloat16"]
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", *arguments) == 0
    for name, stored in read_folder(tmp_path / "back").items():
        expected = tensors[name].astype(DTYPES["bfloat16"]).tobytes()
        assert b"".join(map(bytes, pieces(stored))) == expected, name


def test_a_plan_says_what_it_takes_and_writes_nothing(tmp_path, capfd):
    assert convert("to-hf", "llama2_70b", tmp_path / "out", "--dry-run", "--json") == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["num_params"] == 68_976_648_192
    assert plan["bytes_written"] == 4 * plan["num_params"]
    assert plan["peak_memory_bytes"] < 8e9
    assert list(tmp_path.iterdir()) == []
