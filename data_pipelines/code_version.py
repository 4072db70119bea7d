"""Which code a result was made by: a module, all that it imports of ours, and the libraries."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Whatever its version is, the bytes that it fetches are the same.
_CARRIERS = frozenset({"fsspec"})


def code_version(*modules: str) -> str:
    """SHA-256 over the sources of modules, of what they import of this project, and of versions.

    Imports of this project inside functions do not count: what a function chooses to import is for
    its caller to name. So a change of one filter leaves the others' results as they are. The
    versions are those of Python and of the libraries that any of these modules imports.
    """
    seen: set[str] = set()
    for module in modules:
        _follow(module, seen)
    digest = hashlib.sha256()
    for module in sorted(seen):
        digest.update(_source(module).read_bytes() + b"\0")
    digest.update(f"{sys.version_info.major}.{sys.version_info.minor}".encode())
    for library in sorted({name for module in seen for name in _libraries(module)}):
        digest.update(f"\0{library} {_library_version(library)}".encode())
    return digest.hexdigest()


def _follow(module: str, seen: set[str]) -> None:
    if module in seen:
        return
    seen.add(module)
    for imported in _imports(module):
        _follow(imported, seen)


@functools.cache
def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin)


@functools.cache
def _imports(module: str) -> list[str]:
    """Modules of this project that a module imports where it begins."""
    path = _source(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            ours = (module.split(".")[0], "llama_jax")
            # The config's values are hashed themselves.
            if base.split(".")[0] in ours and not base.startswith("llama_jax.config"):
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    # A package whose modules are imported takes no part itself.
                    found.append(name if _is_module(name) else base)
    return found


@functools.cache
def _libraries(module: str) -> frozenset[str]:
    """Packages of others that a module imports, anywhere: some do so where they need it."""
    found = {name.partition(".")[0] for name in _absolute_imports(_source(module))}
    ours = {module.partition(".")[0], "llama_jax"}
    return frozenset(found - ours - _CARRIERS - sys.stdlib_module_names)


def _absolute_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@functools.cache
def _library_version(library: str) -> str:
    names = sorted(set(_distributions().get(library, ())))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
