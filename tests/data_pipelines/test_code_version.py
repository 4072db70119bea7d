"""What a result is made by is known: our code, and the libraries that decide its bytes."""

import importlib.metadata

import pytest

from data_pipelines import code_version


def forget():
    for each in vars(code_version).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    forget()


def test_code_counts_where_it_is_imported_at_the_top_alone(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    files = {
        "__init__": "from .far import y\n",
        "stage": "from . import beside\nfrom .near import x\ndef run():\n    from .far import y\n",
        "beside": "x = 1\n",
        "near": "x = 1\n",
        "far": "y = 1\n",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))

    def version(*more):
        forget()
        return code_version.code_version("some_package.stage", *more)

    before, with_far = version(), version("some_package.far")
    (package / "far.py").write_text("y = 2\n")
    assert version() == before
    assert version("some_package.far") != with_far
    for name in ("near", "beside"):
        before = version()
        (package / f"{name}.py").write_text("x = 2\n")
        assert version() != before


def test_versions_of_libraries_count_wherever_they_are_imported(tmp_path, monkeypatch):
    package = tmp_path / "other_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stage.py").write_text(
        "import json\nimport fsspec\nfrom . import near\ndef run():\n    import duckdb.types\n"
    )
    (package / "near.py").write_text("from numpy.random import default_rng\nimport not_there\n")
    (package / "far.py").write_text("import regex\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = {}
    version_of = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or version_of(name)
    )

    def version(**changes):
        versions.clear()
        versions.update(changes)
        forget()
        return code_version.code_version("other_package.stage")

    before = version()
    assert version(numpy="0.1") != before
    assert version(duckdb="0.1") != before
    # It fetches bytes, and another module imports this one.
    assert version(fsspec="0.1", regex="0.1") == before


@pytest.mark.parametrize(
    ("stage", "library"),
    [
        ("data_pipelines.sources.common_crawl", "fastwarc"),
        ("data_pipelines.sources.common_crawl", "resiliparse"),
        ("data_pipelines.stages.language", "resiliparse"),
        ("data_pipelines.stages.deduplicate", "duckdb"),
        ("data_pipelines.stages.gather", "pyarrow"),
        ("data_pipelines.stages.make_tokenizer", "sentencepiece"),
        ("llama_jax.data.tiktoken", "tiktoken"),
        ("data_pipelines.stages.classifier_training", "sklearn"),
    ],
)
def test_what_decides_the_bytes_of_a_stage_is_found(stage, library):
    seen = set()
    code_version._follow(stage, seen)
    assert library in {name for module in seen for name in code_version._libraries(module)}


def test_what_puts_sources_and_filters_together_counts_and_those_not_used_do_not():
    seen = set()
    code_version._follow("data_pipelines.stages.collect", seen)
    assert {"data_pipelines.sources", "data_pipelines.stages.filters"} <= seen
    assert not {"data_pipelines.sources.arxiv", "data_pipelines.stages.rules"} & seen
