"""Command lines of the form `RECIPE [--field.of.the.recipe VALUE ...]`."""

import dataclasses
import sys
from typing import Annotated, Any

from llama_jax.config import BuildConfig, RunConfig
from llama_jax.pods import lay_over, parse_slices
from llama_jax.recipe import list_recipes, load_pods, load_recipe


def parse_recipe(
    argv: list[str],
    *,
    prog: str,
    description: str,
    extra: type,
    kind: type[RunConfig] | type[BuildConfig] = RunConfig,
) -> tuple[Any, Any]:
    """Loads the recipe named first and applies the overrides that follow it.

    Args:
        argv: Arguments after the command's name.
        prog: How the command is called, as in "llama-jax train".
        description: What `--help` says first; ends with an example.
        extra: Dataclass of the command's own flags, beside the recipe's fields.
        kind: What the recipe must give.

    Returns:
        The recipe with its overrides, and the `extra`.

    Raises:
        ValueError: If there is no such recipe, or a value breaks a rule of the config.
        SystemExit: Status 0 after `--help`, 2 where an option is unknown or unreadable.
    """
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        page = _front_page(prog, description, kind)
        print(page, file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)

    import tyro

    default = load_recipe(argv[0], kind)
    if pod := _pod_of(argv, extra):
        default = lay_over(default, load_pods(argv[0]), parse_slices(pod, "--pod"))
    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", Annotated[extra, tyro.conf.arg(name="")]),
            ("recipe", Annotated[kind, tyro.conf.arg(name="")], dataclasses.field(default=default)),
        ],
        kw_only=True,
    )
    parsed: Any = tyro.cli(
        tyro.conf.configure(tyro.conf.AvoidSubcommands)(arguments),
        prog=f"{prog} {argv[0]}",
        description=description,
        args=argv[1:],
    )
    return parsed.recipe, parsed.options


def _pod_of(argv: list[str], extra: type) -> str:
    """The value of `--pod`: the recipe's fields begin with what the pod asks for."""
    if "pod" not in {field.name for field in dataclasses.fields(extra)}:
        return ""
    values = (
        arg.partition("=")[2] if "=" in arg else following
        for arg, following in zip(argv, [*argv[1:], ""], strict=True)
        if arg.partition("=")[0] == "--pod"
    )
    return next(values, "")


def _front_page(prog: str, description: str, kind: type) -> str:
    return (
        f"usage: {prog} RECIPE [--field VALUE ...]\n\n{description}\n\n"
        f"recipes: {', '.join(list_recipes(kind))}\n"
        f"RECIPE may also be a path to a .py recipe or to a saved .json.\n\n"
        f"`{prog} RECIPE --help` lists every field with the recipe's value."
    )
