"""Find the web sites with much personal data."""

import dataclasses
import json
import os
import sys
from pathlib import Path

_DESCRIPTION = """Writes the host names of sites with much personal data, one a line.

Reads all raw documents of a recipe's sources with the filter PersonalData, or of all where none has
it, and counts e-mail addresses, phone numbers and public IP addresses by site. Name the file in the
build: PersonalData(sites_file="sites.txt").

example: llama-jax data sites common_crawl --input CC-MAIN-2024-10/ --out sites.txt"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `data sites`."""

    out: Path
    """File to write."""
    input: str = ""
    """File, folder or URL that the sources' paths are below."""
    max_rate: float = 1.0
    """Sites with more finds a document, on average, are listed."""
    min_documents: int = 10
    """Sites with fewer documents are not listed."""
    workers: int = 0
    """Processes; 0 is one for each CPU."""
    work: Path | None = None
    """Folder for the counts of parts, kept, so that a pass that was killed goes on."""
    json: bool = False
    """Print one JSON document on stdout: the sites, and the file."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data sites`."""
    from llama_jax.atomic import write_atomically
    from llama_jax.cli.data.input import with_input
    from llama_jax.cli.data.progress import BuildProgress
    from llama_jax.cli.pipelines import load_pipelines
    from llama_jax.cli.recipe_args import parse_recipe
    from llama_jax.config import BuildConfig, PersonalData

    config, options = parse_recipe(
        argv,
        kind=BuildConfig,
        extra=_Options,
        prog="llama-jax data sites",
        description=_DESCRIPTION,
    )
    if options.max_rate < 0 or options.min_documents < 1:
        raise ValueError(
            f"--max-rate={options.max_rate} must not be negative, "
            f"--min-documents={options.min_documents} must be positive."
        )
    # Books and articles have addresses too, and would count for the sites of web pages.
    counted = [
        source
        for source in config.sources
        if any(isinstance(each, PersonalData) for each in source.filters)
    ]
    if counted:
        config = dataclasses.replace(config, sources=tuple(counted), mixture=())
    if options.input:
        config = with_input(config, options.input)
    executor = load_pipelines("runner").executor(options.workers or len(os.sched_getaffinity(0)))
    with BuildProgress() as progress, executor as run:
        sites = load_pipelines("site_pass").sites_above(
            config,
            options.max_rate,
            options.min_documents,
            progress,
            run=run,
            work=options.work,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, "".join(f"{site}\n" for site in sites))
    print(f"{options.out}: {len(sites):,} sites", file=sys.stderr)
    if options.json:
        print(json.dumps({"out": str(options.out), "sites": list(sites)}))
    return 0
