"""One folder of corpora serves a recipe of many sources."""

import pytest

from llama_jax.cli.data.input import with_input, without
from llama_jax.config import BuildConfig, FilesSource
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


@pytest.mark.parametrize("name", list_recipes(BuildConfig))
def test_every_recipe_can_be_given_its_input(name):
    given = with_input(load_recipe(name, BuildConfig), "somewhere")
    assert all(path.startswith("somewhere") for path in paths(given).values())
