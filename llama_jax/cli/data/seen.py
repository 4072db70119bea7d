"""List the documents that a run was trained on."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_jax.data.dataset import Document

USAGE = """usage: llama-jax data seen RUN_DIR [--step N] [--json]

Lists the documents that a run's updates consumed, in their order, from its checkpoints: source,
number in the shards and id, one document a line. One that was seen again is listed again.

examples:
  llama-jax data seen demo_run/model | head
  llama-jax data seen demo_run/model --step 100 | sort | uniq -c"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `data seen`."""

    step: int | None = None
    """Checkpoint up to which documents are listed; the newest by default."""
    json: bool = False
    """Print one JSON document, with a line for each document that was seen."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data seen`."""
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.cli.pipelines import open_raw
    from llama_jax.train.history import documents_seen

    prog, description = f"llama-jax data seen {argv[0]}", USAGE.partition("\n\n")[2]
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    run_dir = Path(argv[0])
    if not (run_dir / "config.json").is_file():
        raise ValueError(
            f"RUN_DIR={argv[0]!r} has no config.json: give the folder that `llama-jax train "
            "--run-dir` wrote."
        )
    seen = documents_seen(run_dir, options.step, open_raw=open_raw)
    if options.json:
        _print_json(run_dir, seen)
    else:
        for document in seen:
            print("\t".join(map(str, document)))
    return 0


def _print_json(run_dir: Path, seen: "Iterator[Document]") -> None:
    """One JSON document of any length, of which no more than a line is held."""
    lines = (json.dumps(document._asdict()) for document in seen)
    first = next(lines, "")  # what is refused is refused before anything is printed
    print(f'{{"run_dir": {json.dumps(str(run_dir))}, "documents": [\n{first}', end="")
    for line in lines:
        print(f",\n{line}", end="")
    print("\n]}")
