"""A plan for a folder of token shards: their tokens exist, and their mixture is in the recipe."""

import json

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.data.shards import BUILD
from llama_jax.recipe import load_recipe
from tests.data.conftest import write_dataset  # noqa: F401 (fixture)


@pytest.fixture
def corpus(write_dataset):  # noqa: F811
    """Two thirds of "web" and a third of "code", of 60,000 and 10,000 tokens."""
    documents = {"code": 10, "web": 60}
    folder = write_dataset(
        {name: [np.ones(1000, np.int32)] * count for name, count in documents.items()},
        {"web": [np.ones(500, np.int32)]},
        vocab_size=512,
        shard_tokens=20_000,
    )
    build = {"sources": ["code", "web"], "config": {"mixture": [["web", 2.0], ["code", 1.0]]}}
    (folder / BUILD).write_text(json.dumps(build))
    return folder


def plan(capsys, *arguments):
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["mine.py", "mine.json"])
def test_the_recipe_has_the_mixture_and_each_sources_epochs(capsys, tmp_path, corpus, name):
    path = tmp_path / name
    answer = plan(capsys, "--params", "3e5", "--data", str(corpus), "--write", str(path))
    assert answer["request"]["unique_tokens"] == 70_000
    web, code = answer["run"]["mixture"]
    assert (web["name"], code["name"]) == ("web", "code")
    tokens = answer["run"]["tokens"]
    assert web["epochs"] == pytest.approx(tokens * 2 / 3 / 60_000)
    assert code["epochs"] == pytest.approx(tokens / 3 / 10_000)
    config = load_recipe(str(path))
    assert config.data.directory == str(corpus)
    assert config.data.mixture == (("web", 0.6667), ("code", 0.3333))
    assert config.model.vocab_size == 512
    if name == "mine.py":
        assert f'("code", 0.3333),  # {code["epochs"]:.3g} epochs' in path.read_text()
        assert "--data.directory" not in path.read_text()


def test_what_is_asked_for_goes_before_what_the_folder_says(capsys, corpus):
    arguments = ["--params", "3e5", "--data", str(corpus)]
    answer = plan(capsys, *arguments, "--unique-tokens", "5e4", "--vocab-size", "1024")
    assert answer["request"]["unique_tokens"] == 5e4
    assert answer["run"]["shape"]["vocab_size"] == 1024


def test_people_read_the_mixture_too(capsys, corpus):
    assert main(["plan", "--params", "3e5", "--data", str(corpus)]) == 0
    out = capsys.readouterr().out
    assert "66.7% of the tokens, " in out
    assert "epochs of 60k" in out


def test_without_a_stated_mixture_each_source_counts_by_its_tokens(capsys, corpus):
    (corpus / BUILD).unlink()
    mixture = plan(capsys, "--params", "3e5", "--data", str(corpus))["run"]["mixture"]
    assert {source["name"]: source["share"] for source in mixture} == {
        "code": pytest.approx(1 / 7),
        "web": pytest.approx(6 / 7),
    }
    assert mixture[0]["epochs"] == pytest.approx(mixture[1]["epochs"])


def test_a_folder_without_text_is_refused(capsys, tmp_path, corpus):
    assert main(["plan", "--params", "3e5", "--data", str(tmp_path / "none")]) == 2
    assert "llama-jax data build" in capsys.readouterr().err
    (corpus / BUILD).write_text(json.dumps({"sources": [], "config": {"mixture": [["old", 1]]}}))
    assert main(["plan", "--params", "3e5", "--data", str(corpus)]) == 2
    assert "has no training tokens of old" in capsys.readouterr().err
