"""Finds the platforms' templates, in a checkout or an installed wheel, and fills them in."""

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_FOLDERS = (
    Path(__file__).parents[3] / "launch",
    Path(__file__).parents[2] / "_launch",
)


def render(template: str, values: Mapping[str, object]) -> str:
    """A template, filled in.

    A line is left out where a value in it is empty, with the comment above it, and so is a key in
    YAML that has no entry left.

    Args:
        template: Such as "gke/tpu.yaml".
        values: By name; every name of the template, and no other.

    Raises:
        FileNotFoundError: If the installation carries no templates.
    """
    text = find_template(template).read_text(encoding="utf-8")
    names = set(string.Template(text).get_identifiers())
    assert names == values.keys(), f"{template}: {sorted(names ^ values.keys())}"
    lines = text.splitlines()
    filled = string.Template("\n".join(_without_empty_keys(lines, _kept(lines, values))) + "\n")
    return filled.substitute({name: str(value) for name, value in values.items()})


def _kept(lines: list[str], values: Mapping[str, object]) -> Iterator[str]:
    """Leaves out lines with an empty value, and comments just above them."""
    comments: list[str] = []
    for line in lines:
        if line.lstrip().startswith("# "):
            comments.append(line)
            continue
        if not any(values[name] == "" for name in string.Template(line).get_identifiers()):
            yield from (*comments, line)
        comments = []


def _without_empty_keys(lines: list[str], kept: Iterable[str]) -> list[str]:
    """Leaves out a YAML key whose only entries were left out, `labels:` say."""
    opened = {
        line
        for line, after in itertools.pairwise(lines)
        if line.endswith(":") and _indent(after) > _indent(line)
    }
    pairs = itertools.pairwise([*kept, ""])
    return [line for line, after in pairs if line not in opened or _indent(after) > _indent(line)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def find_template(template: str) -> Path:
    """The file of a template.

    Raises:
        FileNotFoundError: If the installation carries no templates.
    """
    for folder in _FOLDERS:
        if (folder / template).is_file():
            return folder / template
    raise FileNotFoundError(
        f"No {template} in {' or '.join(map(str, _FOLDERS))}: the installation is incomplete; "
        "install llama-jax again."
    )
