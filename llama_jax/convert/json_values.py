"""JSON files of others: small ones alone, and values of the type that they must have."""

import json
from pathlib import Path
from typing import Any

# In memory, JSON made for it takes 25 times its bytes. The header of a LLaMA of 405B has 0.2 MB.
MAX_JSON_BYTES = 8_000_000
AGAIN = "the file is damaged; copy or download it again"
_LARGEST = 1e300  # also of whole numbers, which have no bound of their own


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        ValueError: If the file is missing or holds none.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy or download it again.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES:,} bytes; {AGAIN}.")
    return parse(path.read_bytes(), path)


def parse(text: bytes, path: Path) -> dict[str, Any]:
    """The object that a text is, in which no name occurs twice.

    Raises:
        ValueError: If it is none.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a name occurs twice")
        return value

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no valid JSON ({error}); {AGAIN}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object; {AGAIN}.")
    return value


def size(path: Path, given: dict[str, Any], name: str, default: int | None = None) -> int:
    """A count; the default also where the file says null.

    Raises:
        ValueError: If it is none, or missing without a default.
    """
    value = given.get(name)
    value = default if value is None else value
    if type(value) is not int or not 0 < value < 1 << 40:
        raise ValueError(f"{path}: {name}={value!r} must be a positive whole number.")
    return value


def number(
    path: Path, given: dict[str, Any], name: str, default: float | None = None, owner: str = ""
) -> float:
    """A finite number; `owner` names the object that it is in.

    Raises:
        ValueError: If it is none, or missing without a default.
    """
    value = given.get(name, default)
    if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
        dotted = f"{owner}.{name}" if owner else name
        raise ValueError(f"{path}: {dotted}={value!r} must be a number.")
    return float(value)


def flag(path: Path, given: dict[str, Any], name: str) -> bool:
    """True or false; false where the file does not say.

    Raises:
        ValueError: If it is neither.
    """
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{path}: {name}={value!r} must be true or false.")
    return value
