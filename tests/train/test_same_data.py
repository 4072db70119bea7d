"""A run goes on with the data that it began with, and with no others."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.config import CheckpointConfig, EvaluateConfig, LogConfig, MeshConfig
from llama_jax.data.dataset import open_dataset
from llama_jax.train.beginning import parse_origin
from llama_jax.train.history import documents_seen, samples_at_step, samples_seen
from llama_jax.train.loop import train
from tests.train.conftest import write_corpus
from tests.train.test_loop import assert_equal, saved_arrays
from tests.train.tiny_run import tiny_config

BOTH = {"up": 1, "down": -1}


@pytest.fixture
def config(tmp_path):
    write_corpus(tmp_path / "data", BOTH)
    return tiny_config(
        data__directory=str(tmp_path / "data"),
        train__num_steps=6,
        checkpoint=CheckpointConfig(every_steps=3),
        evaluate=EvaluateConfig(num_batches=1),
    )


def longer(config, **data):
    """The same run, three updates longer."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, num_steps=9),
        data=dataclasses.replace(config.data, **data),
    )


@pytest.fixture
def run(config, tmp_path, one_device):
    """A run that has come as far as its plateau goes, and may be continued."""
    config = dataclasses.replace(
        config, schedule=dataclasses.replace(config.schedule, decay_steps=0)
    )
    train(config, tmp_path / "run")
    return config, tmp_path / "run"


def rebuild(config, sources, **changes):
    directory = Path(config.data.directory)
    shutil.rmtree(directory)
    write_corpus(directory, sources, **changes)


OTHERS = [
    # As many documents and tokens, and as long.
    ({"up": 2, "down": -1}, {}, r"source 'up': 400 documents of .* -> 400 documents of "),
    (BOTH, {"tokenizer": b"another"}, "tokenizer: .* -> "),
    (BOTH | {"new": 3}, {}, r"source 'new': \(absent\) -> 400"),
    ({"up": 1}, {}, r"source 'down': .* -> \(absent\)"),
    (BOTH, {"mixture": (("down", 3.0), ("up", 1.0))}, r"source 'down': .*, weight 0\.75"),
]


def test_other_data_are_refused_by_name(run):
    config, folder = run
    kept = {name: (folder / name).read_bytes() for name in ("data.json", "tokenizer.model")}
    for sources, changes, complaint in OTHERS:
        rebuild(config, sources, **changes)
        with pytest.raises(ValueError, match=rf"data\.directory=(.|\n)*{complaint}") as refusal:
            train(longer(config), folder)
        assert "--data-from-start" in str(refusal.value)
        built_anew = f"--tokenizer-file {folder}/tokenizer.model" in str(refusal.value)
        assert built_anew == ("tokenizer" in changes)
        with pytest.raises(ValueError, match="other data than the run read"):
            list(documents_seen(folder))
    assert kept == {name: (folder / name).read_bytes() for name in kept}


def test_a_checkpoint_says_what_its_run_read_where_the_folder_does_not(run):
    config, folder = run
    (folder / "data.json").unlink()
    rebuild(config, {"up": 1, "down": -2})
    with pytest.raises(ValueError, match="source 'down'"):
        train(longer(config), folder)


def test_before_its_first_checkpoint_a_run_has_its_data_too(config, tmp_path, one_device):
    folder = tmp_path / "run"
    train(config, folder)
    shutil.rmtree(folder / "checkpoints")
    rebuild(config, {"up": 1, "down": -2})
    with pytest.raises(ValueError, match=r"source 'down'(.|\n)*another --run-dir for these\.$"):
        train(config, folder)


def test_data_that_were_moved_are_the_same(run, tmp_path):
    config, folder = run
    train(longer(config), tmp_path / "straight")
    Path(config.data.directory).rename(tmp_path / "elsewhere")
    moved = longer(config, directory=str(tmp_path / "elsewhere"))
    train(moved, folder)
    expected, got = (saved_arrays(tmp_path / name, config, 9) for name in ("straight", "run"))
    assert_equal(expected, got)
    assert json.loads((folder / "config.json").read_text())["data"]["directory"].endswith(
        "elsewhere"
    )


def test_a_run_of_before_these_records_goes_on_where_it_was_and_has_them(run, monkeypatch):
    config, folder = run
    (folder / "data.json").unlink()
    meta = Checkpointer.meta
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "meta", lambda *at: meta(*at) | {"data": None})
        with pytest.raises(ValueError, match=r"data\.directory: .* -> elsewhere"):
            train(longer(config, directory="elsewhere"), folder)
        train(longer(config), folder)
    assert (folder / "data.json").is_file()


def test_a_branch_onto_other_data_is_asked_for_and_begins_at_their_beginning(run, tmp_path):
    config, folder = run
    write_corpus(tmp_path / "other", {"up": 1, "new": 5})
    branch = longer(config, directory=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"init_from=(.|\n)*source 'new'(.|\n)*--data-from-start"):
        train(branch, tmp_path / "branch", origin=parse_origin(str(folder)))
    assert not (tmp_path / "branch/config.json").exists()

    origin = parse_origin(str(folder), data_from_start=True)
    train(branch, tmp_path / "branch", origin=origin)
    assert samples_seen(tmp_path / "branch") == [range(24)]
    dataset = open_dataset(branch.data, vocab_size=64, batch_size=8)
    assert set(documents_seen(tmp_path / "branch")) == set(dataset.documents_of(0, 24))
    assert samples_at_step(tmp_path / "branch", 7) == range(8)
    with pytest.raises(ValueError, match=r"began from .*data from the start"):
        train(branch, tmp_path / "branch", origin=parse_origin(f"{folder}@6"))


def test_a_branch_onto_other_weights_of_the_same_documents_needs_no_word(run, tmp_path):
    config, folder = run
    branch = longer(config, mixture=(("up", 3.0), ("down", 1.0)))
    train(branch, tmp_path / "branch", origin=parse_origin(str(folder)))
    assert samples_seen(tmp_path / "branch") == [range(48, 72)]


def test_a_branch_onto_another_tokenizer_is_refused_whatever_is_asked(run, tmp_path):
    config, folder = run
    write_corpus(tmp_path / "other", BOTH, tokenizer=b"another")
    branch = longer(config, directory=str(tmp_path / "other"))
    origin = parse_origin(str(folder), data_from_start=True)
    with pytest.raises(ValueError, match=rf"another tokenizer.*--tokenizer-file {folder}"):
        train(branch, tmp_path / "branch", origin=origin)


def test_a_run_is_not_scored_on_another_tokenizer(run, tmp_path, capsys):
    _, folder = run
    write_corpus(tmp_path / "others", {"others": 4})
    write_corpus(tmp_path / "foreign", BOTH, tokenizer=b"another")
    score = ("eval", str(folder), "--data-directory")
    assert main([*score, str(tmp_path / "others")]) == 0
    assert main([*score, str(tmp_path / "foreign")]) == 2
    assert "has another tokenizer" in capsys.readouterr().err


def test_what_is_refused_leaves_the_folder_to_what_is_asked_next(config, tmp_path, one_device):
    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            train(dataclasses.replace(config, **changes), tmp_path / "run")
        assert not (tmp_path / "run/config.json").exists()

    refused("holds no source", data=dataclasses.replace(config.data, directory="nowhere"))
    refused("mesh", mesh=MeshConfig(fsdp=3))
    refused("wandb", log=LogConfig(wandb_project="mine"))
    train(config, tmp_path / "run")
