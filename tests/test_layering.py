"""Imports point one way only, so that any room can be understood without the ones after it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOUNDATION = {
    "atomic",
    "cache",
    "remote",
    "checksum",
    "refusal",
    "units",
    "plain_text",
    "page",
    "config",
    "recipe",
    "hardware",
    "flops",
    "pods",
}
PEERS = {"data", "checkpoint", "convert", "infer", "observe", "scaling", "aot"}
CENTRE = FOUNDATION | {"sharding", "ops", "model"}
MAY_IMPORT = {
    "atomic": set(),
    "cache": set(),
    "remote": {"atomic", "cache"},
    "checksum": set(),
    "refusal": set(),
    "units": set(),
    "plain_text": set(),
    "page": {"plain_text"},
    "config": set(),
    "recipe": {"config", "refusal"},
    "hardware": {"config"},
    "flops": {"config"},
    "pods": {"config", "hardware"},
    "sharding": FOUNDATION,
    "ops": FOUNDATION | {"sharding"},
    "model": FOUNDATION | {"sharding", "ops"},
    **dict.fromkeys(PEERS, CENTRE),
    "train": CENTRE | PEERS,
    "cli": CENTRE | PEERS | {"train"},
}
SOURCES = sorted((ROOT / "llama_jax").rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Absolute names that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or "data_pipelines" in str(path), f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("llama_jax.")} - {"__version__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_stands_before_it(path):
    parts = path.relative_to(ROOT / "llama_jax").with_suffix("").parts
    if parts == ("__init__",):
        assert not imported_modules(path)
        return
    extra = rooms(imported_modules(path)) - MAY_IMPORT[parts[0]] - {parts[0]}
    assert not extra, f"{path.name} of {parts[0]} imports {sorted(extra)}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda p: p.stem)
def test_a_recipe_imports_the_config_alone(path):
    assert rooms(imported_modules(path)) == {"config"}


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "data_pipelines").rglob("*.py")),
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_pipelines_know_the_shard_format_and_the_tokenizer_alone(path):
    names = {name for name in imported_modules(path) if name.startswith("llama_jax.")}
    known = (
        "llama_jax.data.shards",
        "llama_jax.data.shard_writer",
        "llama_jax.data.tokenizer",
        "llama_jax.data.sentencepiece",
        "llama_jax.atomic",
        "llama_jax.checksum",
        "llama_jax.config",
        "llama_jax.recipe",
        "llama_jax.page",
        "llama_jax.plain_text",
    )
    assert not [name for name in names if not name.startswith(known)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensorflow_is_never_imported(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] == "tensorflow"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_mesh_axes_are_named_in_one_file_alone(path):
    if path.name == "sharding.py" or "config" in path.parts:
        return
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    # "context" is a word of its own: the model's context.
    assert not strings & {"replica", "fsdp", "tensor"}
