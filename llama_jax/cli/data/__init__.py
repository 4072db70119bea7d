"""Build token shards from raw documents; look into them."""

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Literal

_USAGE = """usage: llama-jax data build RECIPE --out DIR [--input PATH] [--FIELD VALUE ...]
       llama-jax data inspect DIR [--document N | --token N | --step N | --report]
       llama-jax data seen RUN_DIR [--step N]
       llama-jax data at-step RUN_DIR STEP [--replay]
       llama-jax data classifier train --good PATH --bad PATH --out FILE
       llama-jax data sites RECIPE --out FILE [--max-rate R]

Builds token shards from raw documents, looks into them, and lists what a run has seen of them.

examples:
  llama-jax data build demo --out demo_run/data
  llama-jax data build demo --out my_data --input my_texts/ --tokenizer.vocab-size 8000
  llama-jax data inspect demo_run/data
  llama-jax data inspect demo_run/data --document 3
  llama-jax data inspect demo_run/data --step 10 --batch-size 4 --seq-len 256
  llama-jax data seen demo_run/model | head"""

_BUILD = """Collects documents, trains or loads the tokenizer, writes token shards.

A killed build, or one stopped with Ctrl-C (exit code 75), goes on where it was; a finished one is
recognised and left as it is.

example: llama-jax data build demo --out my_data --input my_texts/"""

_STOPPED = 75


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BuildOptions:
    """Options of `data build`."""

    out: str
    """Folder to build into; it must be empty, or hold a build of the same recipe. Or a URL that
    fsspec writes to, gs:// or s3:// or hf://, with --work: it is built there, then sent."""
    input: str = ""
    """File, folder or URL that the sources' paths are below. A recipe whose sources have no path,
    such as the demo, takes .txt, .md, .jsonl(.gz/.zst) and .parquet files from there instead."""
    skip: tuple[str, ...] = ()
    """Sources of the recipe that are left out."""
    workers: int = 0
    """Processes; 0 is one for each CPU. The bytes that come out do not depend on it."""
    runner: Literal["local", "beam"] = "local"
    """"beam" runs the work through Apache Beam, on a cluster: --out, --work and the inputs must
    then be on a file system that all workers share."""
    beam_options: str = ""
    """Beam's own options, as one string: "--runner=FlinkRunner --flink_master=..."."""
    work: Path | None = None
    """Folder for what stages leave to one another, kept at the end: a build of a changed recipe
    with the same folder repeats only what the change concerns. By default it is inside --out and
    deleted at the end."""
    max_bad_records: int | None = None
    """Damaged files and records that are left out; one more ends the build. No limit by default."""
    tokenizer_file: str = ""
    """A SentencePiece .model or tiktoken file, in place of the recipe's tokenizer."""
    json: bool = False
    """Print what was built as one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data`."""
    if argv[:1] == ["build"]:
        return _build(argv[1:])
    if argv[:1] == ["inspect"]:
        from llama_jax.cli.data.inspect import main as inspect

        return inspect(argv[1:])
    if argv[:1] == ["seen"]:
        from llama_jax.cli.data.seen import main as seen

        return seen(argv[1:])
    if argv[:1] == ["at-step"]:
        from llama_jax.cli.data.at_step import main as at_step

        return at_step(argv[1:])
    if argv[:1] == ["sites"]:
        from llama_jax.cli.data.sites import main as sites

        return sites(argv[1:])
    if argv[:1] == ["classifier"]:
        from llama_jax.cli.data.classifier import main as classifier

        return classifier(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        raise ValueError(
            f"data {argv[0]!r} is no command. There are: data build, data inspect, data seen, data "
            "at-step, data classifier, data sites."
        )
    print(_USAGE, file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2


def _build(argv: list[str]) -> int:
    from llama_jax.cli.data.input import refuse_url, with_files_there, with_input, without
    from llama_jax.cli.data.inspect import print_summary
    from llama_jax.cli.data.progress import BuildProgress
    from llama_jax.cli.pipelines import load_pipelines
    from llama_jax.cli.recipe_args import parse_recipe
    from llama_jax.config import BuildConfig, TokenizerFile

    config, options = parse_recipe(
        argv, kind=BuildConfig, extra=_BuildOptions, prog="llama-jax data build", description=_BUILD
    )
    refuse_url("--work", options.work)
    if "://" in options.out and options.work is None:
        raise ValueError(
            f"--out={options.out}: what goes to a URL is built in a folder first; say which with "
            "--work."
        )
    config = without(config, options.skip)
    if options.input:
        config = with_input(config, options.input)
    config = with_files_there(config, options.input)
    if options.tokenizer_file:
        config = dataclasses.replace(config, tokenizer=TokenizerFile(path=options.tokenizer_file))
    if options.workers < 0:
        raise ValueError(f"--workers={options.workers} must be positive, or 0 for one a CPU.")
    executor = load_pipelines("runner").executor(
        options.workers or len(os.sched_getaffinity(0)),
        options.runner,
        shlex.split(options.beam_options),
    )
    try:
        with BuildProgress() as progress, executor as run:
            if "://" in options.out:
                build, out = load_pipelines("publish").build_and_publish, options.out
            else:
                build, out = load_pipelines("runner").build, Path(options.out)
            summary, finished_before = build(
                config,
                out,
                progress,
                run=run,
                work=options.work,
                max_bad_records=options.max_bad_records,
            )
    except KeyboardInterrupt:
        print(
            "Stopped. What is done is kept; run the same command again to go on.", file=sys.stderr
        )
        return _STOPPED
    if finished_before:
        print(f"{options.out} is already built from this recipe.", file=sys.stderr)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print_summary(summary, options.out)
    return 0
