"""What a model says of words travels with its weights: nothing is dropped without a word."""

import json
import re
import shutil

import pytest

from llama_jax.cli.main import main
from tests.convert.hf_folder import shrunk, write_hf
from tests.infer.saved_run import TEXT

MODEL = shrunk(vocab_size=323)
GENERATION = {"bos_token_id": 1, "eos_token_id": [2, 321], "do_sample": True, "temperature": 0.6}
FILES = {
    "tokenizer.json": {"added_tokens": [{"id": 320, "content": "<|im_start|>"}]},
    "tokenizer_config.json": {"chat_template": "{{ messages }}", "add_eos_token": True},
    "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    "added_tokens.json": {"<|im_start|>": 320, "<|im_end|>": 321, "<pad>": 322},
    "generation_config.json": GENERATION,
    "additional_chat_templates/tools.jinja": {},
    "chat_template.jinja": {},
}
IDS = {"bos_token_id": 1, "eos_token_id": [2, 321], "pad_token_id": 322}


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def write_model(folder, files, **config):
    write_hf(folder, MODEL, "bfloat16")
    change(folder / "config.json", config)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=3))


def change(path, changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    from llama_jax.data.sentencepiece import train_sentencepiece

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_sentencepiece(TEXT, path, vocab_size=320)
    return path


@pytest.mark.parametrize("with_model", [True, False])
def test_a_tokenizer_comes_back_byte_for_byte(tmp_path, capfd, sentencepiece, with_model):
    write_model(tmp_path / "hf", FILES, **IDS, tokenizer_class="LlamaTokenizer")
    names = [*FILES, "tokenizer.model"] if with_model else [*FILES]
    if with_model:
        shutil.copyfile(sentencepiece, tmp_path / "hf/tokenizer.model")
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert with_model == ("that of transformers is kept" not in capfd.readouterr().err)
    assert convert("to-hf", tmp_path / "run", tmp_path / "back") == 0
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert {name: config[name] for name in IDS} == IDS
    assert (config["tokenizer_class"], config["vocab_size"]) == ("LlamaTokenizer", 323)
    for folder, inside in (("run", "imported/"), ("back", "")):
        files = json.loads((tmp_path / folder / "certificate.json").read_text())["files"]
        assert {f"{inside}{name}" for name in names} <= files.keys()
    assert convert("check", tmp_path / "hf", tmp_path / "back") == 0


def test_without_its_tokenizer_a_model_keeps_its_ids(tmp_path):
    write_model(tmp_path / "hf", FILES, **IDS)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back", "--without-tokenizer") == 0
    assert not (tmp_path / "back/tokenizer.json").exists()
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert {name: config[name] for name in IDS} == IDS
    assert json.loads((tmp_path / "back/generation_config.json").read_text()) == GENERATION


def test_ids_of_a_config_alone_come_back(tmp_path, capfd, sentencepiece):
    write_model(tmp_path / "hf", {}, **IDS)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back") == 2
    assert "was imported without a tokenizer; export without one" in capfd.readouterr().err
    # A tokenizer that a person copies there later is exported with the ids of the model.
    shutil.copyfile(sentencepiece, tmp_path / "run/tokenizer.model")
    assert convert("to-hf", tmp_path / "run", tmp_path / "back") == 0
    assert (tmp_path / "back/tokenizer.json").is_file()
    generation = json.loads((tmp_path / "back/generation_config.json").read_text())
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert {name: config[name] for name in IDS} == {name: generation[name] for name in IDS} == IDS


def test_what_is_left_behind_is_told(tmp_path, capfd):
    write_model(tmp_path / "hf", FILES | {"LICENSE.json": {}, ".gitattributes": {}})
    (tmp_path / "hf/optimizer").mkdir()
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run", "--json") == 0
    told = capfd.readouterr()
    assert "not of the model, left behind: LICENSE.json, optimizer" in told.err
    assert json.loads(told.out)["left_behind"] == ["LICENSE.json", "optimizer"]
    source = json.loads((tmp_path / "run/certificate.json").read_text())["source"]
    assert source["left_behind"] == ["LICENSE.json", "optimizer"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": "t"}}},
            "auto_map=.* names code",
        ),
        ({"generation_config.json": {"custom_generate": "x"}}, "custom_generate='x' names code"),
        ({"generation_config.json": [1]}, "generation_config.json holds no JSON object"),
        ({"adapter_config.json": {}}, "adapter_config.json says that an adapter changes"),
        (
            {"model.safetensors.index.json": {"weight_map": {"a": "b.safetensors"}}},
            "has model.safetensors, and model.safetensors.index.json, which names other files",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(tmp_path, capfd, files, complaint):
    write_model(tmp_path / "hf", files)
    for arguments in ([], ["--dry-run"]):
        assert convert("from-hf", tmp_path / "hf", tmp_path / "run", *arguments) == 2
        assert re.search(complaint, capfd.readouterr().err)
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]
