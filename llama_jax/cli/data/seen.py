"""List the documents that a run was trained on."""

import dataclasses
import json
import sys
from pathlib import Path

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
    """Print each document as one JSON object a line."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data seen`."""
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.cli.pipelines import open_raw
    from llama_jax.train.history import documents_seen

    run_dir = Path(argv[0])
    if not (run_dir / "config.json").is_file():
        raise ValueError(
            f"RUN_DIR={argv[0]!r} has no config.json: give the folder that `llama-jax train "
            "--run-dir` wrote."
        )
    options = tyro.cli(_Options, prog="llama-jax data seen RUN_DIR", args=argv[1:])
    for document in documents_seen(run_dir, options.step, open_raw=open_raw):
        print(json.dumps(document._asdict()) if options.json else "\t".join(map(str, document)))
    return 0
