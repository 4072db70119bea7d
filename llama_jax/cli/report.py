"""Show what a run did, as one page: curves, where its time went, what went wrong."""

import dataclasses
import json
import sys
from pathlib import Path

from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import keep, read_only_copy

USAGE = """usage: llama-jax report RUN_DIR [--out PAGE.html] [--json]

Writes one self-contained HTML page about a run that is running, dead or done: loss, speed, where
the wall time of all its starts went, learning rate, gradients, mixture, restarts and incidents.

example: llama-jax report demo_run/model"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `report`."""

    out: Path | None = None
    """Page to write; RUN_DIR/report.html by default."""
    json: bool = False
    """Print wall time, starts and incidents as one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax report`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.observe.goodput import NAME, read_goodput, read_starts
    from llama_jax.observe.incidents import read_incidents
    from llama_jax.observe.report_page import write_report

    asked = Path(argv[0])
    run_dir = read_only_copy(asked)
    prog = f"llama-jax report {argv[0]}"
    description = USAGE.partition("\n\n")[2]
    options = tyro.cli(_Options, prog=prog, description=description, args=argv[1:])
    out = options.out or run_dir / "report.html"
    write_report(run_dir, out)
    page = str(out)
    if options.out is None:
        keep(asked, out)
        page = shown(asked / out.name)
    wall_time = read_goodput(run_dir / NAME)
    print(f"wall time of all starts: {wall_time}", file=sys.stderr)
    print(f"page: {page}", file=sys.stderr)
    if options.json:
        document = {
            "run_dir": shown(asked),
            "page": page,
            "goodput": wall_time.goodput,
            "wall_seconds": wall_time.seconds,
            "starts": [dataclasses.asdict(start) for start in read_starts(run_dir / NAME)],
            "incidents": [dataclasses.asdict(incident) for incident in read_incidents(run_dir)],
        }
        print(json.dumps(document))
    return 0
