"""Recipes: found by name or path, saved as JSON that is a recipe too, compared field by field."""

import contextlib
import dataclasses
import difflib
import json
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax import config
from llama_jax.config import BuildConfig, RunConfig
from llama_jax.config.pod import PodSettings
from llama_jax.refusal import is_refusal

# A checkout keeps recipes beside the package; a wheel carries them inside it.
_FOLDERS = (
    Path(__file__).parent.parent / "configs",
    Path(__file__).parent / "_configs",
)


def recipe_folder() -> Path:
    """The folder of this project's own recipes.

    Raises:
        FileNotFoundError: If the installation carries none.
    """
    for folder in _FOLDERS:
        if (folder / "demo.py").is_file():
            return folder
    raise FileNotFoundError(
        f"No recipes beside or inside {Path(__file__).parent}: the installation is incomplete; "
        "install llama-jax again."
    )


def list_recipes(kind: type = RunConfig) -> list[str]:
    """Names of this project's recipes for runs (`RunConfig`) or datasets (`BuildConfig`)."""
    folder = recipe_folder() / "data" if kind is BuildConfig else recipe_folder()
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load_recipe(reference: str, kind: type = RunConfig) -> Any:
    """Loads a recipe by name, from a Python file with `config()`, or from saved JSON.

    Args:
        reference: "llama2_7b", "path/to/recipe.py" or "path/to/config.json".
        kind: `RunConfig` or `BuildConfig`.

    Raises:
        ValueError: If there is no such recipe, its code is wrong, or it does not give a `kind`
            whose fields have their types.
    """
    path = _find(reference, kind)
    if path.suffix == ".json":
        return from_json(path.read_text(), kind)
    with _told_with_its_line(reference, path):
        namespace = runpy.run_path(str(path))
        value = namespace["config"]() if "config" in namespace else None
    if "config" not in namespace:
        raise ValueError(f"RECIPE={reference!r} must define `def config() -> {kind.__name__}`.")
    if not isinstance(value, kind):
        raise ValueError(
            f"RECIPE={reference!r} gives a {type(value).__name__}; this command needs a "
            f"{kind.__name__}."
        )
    # Python takes any value for any field; what comes back here can be saved and read again.
    return _decode(_encode(value, kind), kind, "config")


@contextlib.contextmanager
def _told_with_its_line(reference: str, path: Path) -> Iterator[None]:
    """Says in words, and where, what is wrong with a recipe's own code."""
    try:
        yield
    except Exception as error:
        if is_refusal(error):
            raise
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        raise ValueError(
            f"RECIPE={reference!r}, line {lines[-1]}: {_wrong_field(error) or _in_words(error)}"
        ) from error


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {getattr(error, 'msg', None) or error}."


def _wrong_field(error: Exception) -> str:
    """The field that a class of the config was given wrongly; empty if it was something else."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if type(owner).__module__.startswith(config.__name__) and dataclasses.is_dataclass(owner):
            with contextlib.suppress(TypeError, AttributeError):
                try:
                    _decode(_encode(owner, type(owner)), type(owner), type(owner).__name__)
                except ValueError as wrong:
                    return str(wrong)
    named = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = getattr(config, named[1], None) if named else None
    return _no_such_field(named[2], named[1], kind) if named and kind else ""


def load_pods(reference: str) -> dict[str, PodSettings]:
    """Settings by name of chip, from the table `PODS` of a recipe; empty where it has none.

    Raises:
        ValueError: If there is no such recipe.
    """
    path = _find(reference, RunConfig)
    if path.suffix == ".json":
        return {}
    with _told_with_its_line(reference, path):
        return runpy.run_path(str(path)).get("PODS", {})


def _find(reference: str, kind: type) -> Path:
    path = Path(reference)
    if path.suffix not in (".py", ".json"):
        folder = recipe_folder() / "data" if kind is BuildConfig else recipe_folder()
        path = folder / f"{reference}.py"
        if not path.is_file():
            raise ValueError(_no_such_recipe(reference, list_recipes(kind)))
    if not path.is_file():
        raise ValueError(f"RECIPE={reference!r}: there is no such file.")
    return path


def _no_such_recipe(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(known)}."
    return f"RECIPE={name!r} is no recipe. {hint} A path to a .py or .json file works too."


def to_json(value: Any) -> str:
    """A config as JSON; a field that could be of several classes carries its class as "type"."""
    return json.dumps(_encode(value, type(value)), indent=2) + "\n"


def from_json(text: str, kind: type = RunConfig) -> Any:
    """Reads what `to_json` wrote; every check of the config runs again.

    Raises:
        ValueError: If the text is no JSON, a field is unknown or missing, or a value is refused.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"The config is no valid JSON: {error}.") from error
    return _decode(data, kind, "config")


def differences(old: Any, new: Any) -> list[str]:
    """Lines such as `train.batch_size: 8 -> 16` for every leaf that differs."""
    before, after = dict(_leaves(json.loads(to_json(old)))), dict(_leaves(json.loads(to_json(new))))
    return [
        f"{name}: {before.get(name, '(absent)')} -> {after.get(name, '(absent)')}"
        for name in before | after
        if before.get(name) != after.get(name)
    ]


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(data, list) and data and all(isinstance(each, dict) for each in data):
        for number, each in enumerate(data):
            yield from _leaves(each, f"{prefix}.{number}")
    else:
        yield prefix, data


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _encode(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        tag = {"type": type(value).__name__} if _is_union(hint) else {}
        fields = (field.name for field in dataclasses.fields(value))
        return tag | {name: _encode(getattr(value, name), hints[name]) for name in fields}
    if isinstance(value, (tuple, list)):  # which a recipe may give
        item = (typing.get_args(hint) or (None,))[0]
        return [_encode(element, item) for element in value]
    return value


def _decode(data: Any, hint: Any, where: str) -> Any:
    if data is None and type(None) in typing.get_args(hint):
        return None
    if _is_union(hint):
        hint, data = _choose(data, hint, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(data, typing.cast(type, hint), where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, got {data!r}.")
        items = typing.get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            items = (items[0],) * len(data)
        if len(items) != len(data):
            raise ValueError(f"{where} must have {len(items)} entries, got {len(data)}.")
        pairs = zip(data, items, strict=True)
        return tuple(_decode(value, item, f"{where}[{i}]") for i, (value, item) in enumerate(pairs))
    wanted = type(typing.get_args(hint)[0]) if origin is typing.Literal else hint
    if wanted is float and type(data) is int:
        return float(data)
    if type(data) is not wanted:
        raise ValueError(f"{where}={data!r} must be of type {wanted.__name__}.")
    return data


def _choose(data: Any, union: Any, where: str) -> tuple[type, Any]:
    classes = {option.__name__: option for option in typing.get_args(union)}
    tag = data.get("type") if isinstance(data, dict) else None
    if tag not in classes:
        raise ValueError(f"{where}.type={tag!r} must be one of {', '.join(classes)}.")
    return classes[tag], {key: value for key, value in data.items() if key != "type"}


def _decode_dataclass(data: Any, kind: type, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object with the fields of {kind.__name__}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in data:
        if name not in fields:
            raise ValueError(_no_such_field(name, where, kind))
    missing = [
        name
        for name, field in fields.items()
        if name not in data
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}, which {kind.__name__} needs.")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _decode(data[name], hints[name], f"{where}.{name}") for name in data})


def _no_such_field(name: str, where: str, kind: type) -> str:
    close = difflib.get_close_matches(name, [field.name for field in dataclasses.fields(kind)], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{where}.{name} is no field of {kind.__name__}.{hint}"


__all__ = [
    "differences",
    "from_json",
    "list_recipes",
    "load_recipe",
    "recipe_folder",
    "to_json",
]
