"""One folder of corpora serves a recipe of many sources."""

import dataclasses
import json
import random

import pytest

from llama_jax.cli.data.input import with_files_there, with_input, without
from llama_jax.cli.main import main
from llama_jax.config import BuildConfig, Decontamination, FilesSource, QualityClassifier
from llama_jax.recipe import list_recipes, load_recipe


def paths(config):
    return {source.name: getattr(source, "path", None) for source in config.sources}


def test_paths_are_below_the_input_and_everything_else_stays():
    recipe = load_recipe("llama1_mix", BuildConfig)
    given = with_input(recipe, "s3://bucket/corpora/")
    assert paths(given)["c4"] == "s3://bucket/corpora/c4"
    assert paths(given)["stack_exchange"] == "s3://bucket/corpora/stackexchange"
    assert given.sources[0].filters == recipe.sources[0].filters != ()
    assert given.mixture == recipe.mixture


def test_a_source_without_a_path_of_its_own_reads_the_input_itself():
    recipe = load_recipe("wikipedia", BuildConfig)
    assert paths(with_input(recipe, "dumps/en.xml.bz2")) == {"wikipedia": "dumps/en.xml.bz2"}


def test_a_recipe_without_any_path_takes_text_files_from_the_input():
    given = with_input(load_recipe("demo", BuildConfig), "texts/")
    assert given.sources == (FilesSource(path="texts/"),)


def test_skipped_sources_leave_the_mixture_too():
    recipe = load_recipe("llama1_mix", BuildConfig)
    fewer = without(recipe, ("c4", "books"))
    assert set(paths(recipe)) - set(paths(fewer)) == {"c4", "books"}
    assert set(dict(fewer.mixture)) == set(paths(fewer))
    with pytest.raises(ValueError, match="--skip=wiki: there is no such source, but common_crawl"):
        without(recipe, ("wiki",))


def filters(config, name):
    return next(source.filters for source in config.sources if source.name == name)


def test_filters_whose_files_are_not_there_are_left_out_and_said(tmp_path, capsys):
    recipe = load_recipe("llama1_mix", BuildConfig)
    given = with_files_there(recipe, str(tmp_path))
    kinds = [type(each) for each in filters(recipe, "common_crawl")]
    assert [type(each) for each in filters(given, "common_crawl")] == [
        kind for kind in kinds if kind not in (QualityClassifier, Decontamination)
    ]
    eval_line, model_line = sorted(capsys.readouterr().err.splitlines())
    assert eval_line.startswith(
        f"{tmp_path}/eval is not there; left out: Decontamination of common_crawl, Decontamination"
    )
    assert model_line == (
        f"{tmp_path}/quality.model is not there; left out: QualityClassifier of common_crawl."
    )
    with_files_there(recipe, "s3://bucket")
    assert "s3://bucket/eval is a URL, and is read from this machine alone" in (
        capsys.readouterr().err
    )


def test_filters_whose_files_are_there_read_them_below_the_input(tmp_path, capsys):
    (tmp_path / "eval").mkdir()
    (tmp_path / "other.model").touch()
    recipe = load_recipe("llama1_mix", BuildConfig)
    given = filters(with_files_there(recipe, f"{tmp_path}/"), "wikipedia")
    assert given == (Decontamination(paths=(f"{tmp_path}/eval",), action="remove"),)
    capsys.readouterr()
    (source, *_) = recipe.sources
    named = QualityClassifier(path=str(tmp_path / "other.model"), if_there=True)
    always = Decontamination(paths=("mine",))
    source = dataclasses.replace(source, filters=(named, always))
    recipe = dataclasses.replace(recipe, sources=(source,), mixture=())
    assert with_files_there(recipe, "elsewhere").sources[0].filters == (
        dataclasses.replace(named, if_there=False),
        always,
    )
    assert capsys.readouterr().err == ""


def test_a_build_of_the_mixture_uses_what_is_there(tmp_path, capsys):
    """One command, on what there is of the corpora: a book, and an evaluation set that it has."""
    passage = "it was the best of times and it was the worst of times for all of us there"
    (tmp_path / "books").mkdir()
    (tmp_path / "eval").mkdir()
    rng = random.Random(0)
    for number in range(20):
        quoted = passage if number == 3 else ""
        text = " ".join("".join(rng.choices("abcdefgh", k=4)) for word in range(300))
        (tmp_path / "books" / f"{number}.txt").write_text(f"{text}\n{quoted}\n")
    (tmp_path / "eval" / "a.txt").write_text(passage + "\n")
    others = ["common_crawl", "c4", "github", "wikipedia", "arxiv", "stack_exchange"]
    command = ["data", "build", "llama1_mix", "--input", str(tmp_path), "--skip", *others]
    command += ["--out", str(tmp_path / "out"), "--tokenizer.vocab-size", "300", "--workers", "1"]
    assert main(command) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["sources"]["books"]
    assert report["notes"]["evaluation items found"] == {"a.txt:1": 1}


@pytest.mark.parametrize("name", list_recipes(BuildConfig))
def test_every_recipe_can_be_given_its_input(name):
    given = with_input(load_recipe(name, BuildConfig), "somewhere")
    assert all(path.startswith("somewhere") for path in paths(given).values())
