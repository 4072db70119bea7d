"""Which code a result was made by: the sources of a module and of all that it imports of ours."""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path


def code_version(*modules: str) -> str:
    """SHA-256 over the sources of modules, and of what they import of this project.

    Imports inside functions do not count: what a function chooses to import is for its caller to
    name. So a change of one filter leaves the others' results as they are.
    """
    seen: set[str] = set()
    for module in modules:
        _follow(module, seen)
    digest = hashlib.sha256()
    for module in sorted(seen):
        digest.update(_source(module).read_bytes() + b"\0")
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
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
