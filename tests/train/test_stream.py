"""Runs that read raw documents, as a person starts them: they resume and say what they saw."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from data_pipelines.stream import RawDocuments, open_raw
from llama_jax import recipe
from llama_jax.config import (
    BuildConfig,
    CheckpointConfig,
    FilesSource,
    MinHash,
    TokenizerFile,
    TokenizerTraining,
)
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.train.beginning import Origin
from llama_jax.train.data import open_data
from llama_jax.train.history import documents_seen
from tests.train.test_loop import assert_equal, saved_arrays, wait_for_step
from tests.train.tiny_run import MODEL, tiny_config

NUM_STEPS = 30


@pytest.fixture
def config(raw_texts):
    return tiny_config(
        model=dataclasses.replace(MODEL, vocab_size=320),
        train__num_steps=NUM_STEPS,
        checkpoint=CheckpointConfig(every_steps=5),
    )


@pytest.fixture
def stream(raw_texts, llama_jax) -> list:
    """What a person adds to `llama-jax train`."""
    path = llama_jax.folder / "data_recipe.json"
    built = BuildConfig(
        name="numbers",
        sources=(FilesSource(),),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.15,
    )
    path.write_text(recipe.to_json(built))
    model = raw_texts / "small.model"
    return ["--stream", path, "--input", raw_texts / "raw", "--tokenizer-file", model]


def test_a_killed_run_is_the_run_that_was_never_killed(llama_jax, config, stream, one_device):
    command = ("train", llama_jax.recipe(config), *stream)
    done = llama_jax.run(*command, "--run-dir", "undisturbed", "--json")
    summary = json.loads(done.stdout)
    assert summary["step"] == NUM_STEPS and summary["held_out"]["files"]["tokens"] > 0
    killed = llama_jax.folder / "killed"
    for step in (8, 19):
        process = llama_jax.start(*command, "--run-dir", "killed")
        wait_for_step(killed, step, process)
        process.kill()
        process.communicate()
    # The folder says by itself what it was reading.
    again = llama_jax.run("train", killed / "config.json", "--run-dir", "killed", "--json")
    assert "resumed at step" in again.stderr
    assert json.loads(again.stdout)["held_out"] == summary["held_out"]
    undisturbed = llama_jax.folder / "undisturbed"
    expected, got = (saved_arrays(run, config, NUM_STEPS) for run in (undisturbed, killed))
    assert_equal(expected, got)

    seen = llama_jax.run("data", "seen", killed).stdout.splitlines()
    documents = list(documents_seen(undisturbed, open_raw=open_raw))
    assert [line.split("\t")[2] for line in seen] == [document.id for document in documents]
    assert len(set(documents)) > 80 and documents[0].id.count(".jsonl:")
    scores = json.loads(llama_jax.run("eval", killed, "--json").stdout)
    assert scores["held_out"] == summary["held_out"]


def test_the_documents_of_a_step_that_is_not_finite_are_named(llama_jax, config, stream):
    train = dataclasses.replace(config.train, z_loss=3e38, max_skipped_updates=3)
    path = llama_jax.recipe(dataclasses.replace(config, train=train))
    failed = llama_jax.run("train", path, *stream, "--run-dir", "run", expect=1)
    assert "  files: " in failed.stderr and ".jsonl:" in failed.stderr


def test_a_branch_knows_the_stream_from_the_run_that_it_left(
    raw_texts, config, tmp_path, monkeypatch
):
    built = BuildConfig(
        name="numbers",
        sources=(FilesSource(path=str(raw_texts / "raw")),),
        tokenizer=TokenizerFile(path=str(raw_texts / "small.model")),
    )
    config = dataclasses.replace(config, stream=built)
    theirs, at = tmp_path / "theirs", 2000
    with RunDirectory(theirs) as folder:
        folder.adopt(config)
    with open_data(config, theirs, open_raw, write=True) as data:
        expected = data.dataset.batch(at)
    read, documents = [], RawDocuments.documents
    monkeypatch.setattr(
        RawDocuments, "documents", lambda self, f, w: read.append(f) or documents(self, f, w)
    )
    origin = Origin(run_dir=str(theirs), step=250)
    for seed in (0, 1):  # of another order: nothing of theirs holds
        changed = dataclasses.replace(
            config, data=dataclasses.replace(config.data, shuffle_seed=seed)
        )
        read.clear()
        with open_data(changed, tmp_path / f"{seed}", open_raw, write=True, origin=origin) as data:
            got = data.dataset.batch(at)
        assert np.array_equal(expected.inputs, got.inputs) == (seed == 0)
        assert (len(read) <= 12) == (seed == 0)


def test_what_a_refused_start_noted_of_a_stream_binds_nobody(raw_texts, config, tmp_path):
    files = tmp_path / "raw"
    shutil.copytree(raw_texts / "raw", files)
    built = BuildConfig(
        name="numbers",
        sources=(FilesSource(path=str(files)),),
        tokenizer=TokenizerFile(path=str(raw_texts / "small.model")),
    )
    config = dataclasses.replace(config, stream=built)
    with open_data(config, tmp_path / "run", open_raw, write=True):
        pass
    (files / "0.jsonl").write_text('{"text": "other words"}\n')
    with open_data(config, tmp_path / "run", open_raw, write=True):
        pass
    with RunDirectory(tmp_path / "run") as folder:
        folder.adopt(config)
    (files / "0.jsonl").write_text('{"text": "other words again"}\n')
    with (
        pytest.raises(ValueError, match=r"0\.jsonl changed since this run began"),
        open_data(config, tmp_path / "run", open_raw, write=True),
    ):
        pass


def test_what_a_stream_cannot_do_is_refused_with_what_to_do(raw_texts, config):
    def refused(match: str, **changes) -> None:
        built = BuildConfig(
            name="numbers",
            sources=(FilesSource(path="raw"),),
            tokenizer=TokenizerFile(path=str(raw_texts / "small.model")),
        )
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(config, stream=dataclasses.replace(built, **changes))

    refused("llama-jax tokenizer train", tokenizer=TokenizerTraining())
    refused(r"files\.dedup: .*data build", sources=(FilesSource(dedup=(MinHash(),)),))
    refused(r"files\.max_bytes=5: ", sources=(FilesSource(max_bytes=5),))


def test_a_vocabulary_that_is_too_small_is_refused(llama_jax, config, stream):
    small = dataclasses.replace(config, model=dataclasses.replace(MODEL, vocab_size=265))
    failed = llama_jax.run("train", llama_jax.recipe(small), *stream, expect=2)
    assert "model.vocab_size=265 is below the 271 ids" in failed.stderr
    failed = llama_jax.run("train", llama_jax.recipe(config), "--input", "x", expect=2)
    assert "--stream" in failed.stderr
