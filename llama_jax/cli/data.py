"""Build token shards from raw documents; look into them."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_USAGE = """usage: llama-jax data build RECIPE --out DIR [--input PATH] [--FIELD VALUE ...]
       llama-jax data inspect DIR [--source NAME] [--split train|heldout] [--document N]
       llama-jax data seen RUN_DIR [--step N]
       llama-jax data classifier train --good PATH --bad PATH --out FILE

Builds token shards from raw documents, looks into them, and lists what a run has seen of them.

examples:
  llama-jax data build demo --out demo_run/data
  llama-jax data build demo --out my_data --input my_texts/ --tokenizer.vocab-size 8000
  llama-jax data inspect demo_run/data
  llama-jax data inspect demo_run/data --document 3
  llama-jax data inspect demo_run/data --step 10 --batch-size 4 --seq-len 256
  llama-jax data seen demo_run/model | head"""

_BUILD = """Collects documents, trains or loads the tokenizer, writes token shards.

A killed build goes on where it was; a finished one is recognised and left as it is.

example: llama-jax data build demo --out my_data --input my_texts/"""

_INSPECT = """Shows what a folder of token shards holds: counts, documents, or the rows of a step.

example: llama-jax data inspect demo_run/data --source python --split heldout --document 0"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BuildOptions:
    """Options of `data build`."""

    out: Path
    """Folder to build into; it must be empty, or hold a build of the same recipe."""
    input: str = ""
    """File, folder or URL that the sources' paths are below. A recipe whose sources have no path,
    such as the demo, takes .txt, .md, .jsonl(.gz/.zst) and .parquet files from there instead."""
    skip: tuple[str, ...] = ()
    """Sources of the recipe that are left out."""
    workers: int = 0
    """Processes; 0 is one for each CPU. The bytes that come out do not depend on it."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InspectOptions:
    """Options of `data inspect`."""

    source: str = ""
    """Source of the document shown; the first by default."""
    split: str = "train"
    """"train" or "heldout"."""
    document: int | None = None
    """Show this document: its id, tokens and decoded text."""
    step: int | None = None
    """Show the rows of this training step."""
    batch_size: int = 4
    """Rows of the step shown."""
    seq_len: int = 256
    """Tokens of a row of the step shown."""
    shuffle_seed: int = 0
    """Seed of the order of the step shown."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data`."""
    if argv[:1] == ["build"]:
        return _build(argv[1:])
    if argv[:1] == ["inspect"]:
        return _inspect(argv[1:])
    if argv[:1] == ["seen"]:
        from llama_jax.cli.data_seen import main as seen

        return seen(argv[1:])
    if argv[:1] == ["classifier"]:
        from llama_jax.cli.data_classifier import main as classifier

        return classifier(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        raise ValueError(
            f"data {argv[0]!r} is no command. There are: data build, data inspect, data seen, data "
            "classifier."
        )
    print(_USAGE, file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2


def _build(argv: list[str]) -> int:
    from llama_jax.cli.data_input import with_input, without
    from llama_jax.cli.pipelines import load_pipelines
    from llama_jax.cli.recipe_args import parse_recipe
    from llama_jax.config import BuildConfig, TokenizerFile

    config, options = parse_recipe(
        argv, kind=BuildConfig, extra=_BuildOptions, prog="llama-jax data build", description=_BUILD
    )
    config = without(config, options.skip)
    if options.input:
        config = with_input(config, options.input)
    if options.tokenizer_file:
        config = dataclasses.replace(config, tokenizer=TokenizerFile(path=options.tokenizer_file))
    if options.workers < 0:
        raise ValueError(f"--workers={options.workers} must be positive, or 0 for one a CPU.")
    runner = load_pipelines("runner")
    with _Progress() as progress:
        summary, finished_before = runner.build(
            config,
            options.out,
            progress,
            run=runner.executor(options.workers or len(os.sched_getaffinity(0))),
            work=options.work,
            max_bad_records=options.max_bad_records,
        )
    if finished_before:
        print(f"{options.out} is already built from this recipe.", file=sys.stderr)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, options.out)
    return 0


class _Progress:
    """One line a stage on stderr, alive where stderr is a terminal."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end_stages()
        self._progress.stop()

    def stage(self, name: str, total_bytes: int) -> None:
        """See `data_pipelines.runner.Reporter`."""
        if name.split()[0] not in {other.split()[0] for other in self._open()}:
            self._end_stages()
        self._tasks[name] = self._progress.add_task(name, total=total_bytes)
        if not self._console.is_terminal:
            print(f"{name} ...", file=sys.stderr, flush=True)

    def advance(self, name: str, num_bytes: int) -> None:
        """See `data_pipelines.runner.Reporter`."""
        self._progress.advance(self._tasks[name], num_bytes)

    def _open(self) -> list[str]:
        return [name for name, task in self._tasks.items() if not self._task(task).finished]

    def _end_stages(self) -> None:
        for name in self._open():
            task = self._task(self._tasks[name])
            done = task.completed or 1
            self._progress.update(task.id, total=done, completed=done)

    def _task(self, number: Any) -> Any:
        return next(task for task in self._progress.tasks if task.id == number)


def _print_summary(summary: dict[str, Any], directory: Path) -> None:
    tokenizer = summary["tokenizer"]
    print(f"{directory}: tokenizer {tokenizer['kind']}, {tokenizer['vocab_size']:,} ids")
    for name, source in summary["sources"].items():
        for split, counts in source["splits"].items():
            tokens, text_bytes = counts["tokens"], counts["text_bytes"]
            ratio = f", {text_bytes / tokens:.2f} bytes a token" if tokens else ""
            print(
                f"  {name} {split}: {counts['documents']:,} documents, {tokens:,} tokens, "
                f"{text_bytes:,} bytes{ratio}, {counts['shards']} shards"
            )
        for reason, count in source["dropped"].items():
            examples = ", ".join(source["dropped_examples"][reason][:2])
            print(f"  {name} left out {count:,}: {reason} ({examples}{', …' * (count > 2)})")


def _inspect(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    directory = Path(argv[0])
    options = tyro.cli(
        _InspectOptions,
        prog=f"llama-jax data inspect {argv[0]}",
        description=_INSPECT,
        args=argv[1:],
    )
    if options.document is not None:
        found = _document(directory, options)
    elif options.step is not None:
        found = _step(directory, options)
    else:
        found = _summary(directory)
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif options.document is not None:
        _print_document(found)
    elif options.step is not None:
        for row in found["rows"]:
            for piece in row:
                print(f"--- row {piece['row']}, {piece['tokens']} tokens\n{piece['text']}")
        print("documents:", *(document["id"] for document in found["documents"]), sep="\n  ")
    else:
        _print_summary(found, directory)
    return 0


def _summary(directory: Path) -> dict[str, Any]:
    from llama_jax.data.shards import list_sources, read_manifest

    path = directory / "build.json"
    if not path.is_file():
        raise ValueError(
            f"DIR={str(directory)!r} has no build.json: nothing was built there, or the build was "
            "killed; run `llama-jax data build` again."
        )
    for source in list_sources(directory):
        read_manifest(directory / source)
    return json.loads(path.read_text())


def _document(directory: Path, options: _InspectOptions) -> dict[str, Any]:
    from llama_jax.data.shards import SplitReader, list_sources, read_manifest
    from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

    names = list_sources(directory)
    source = options.source or names[0]
    if source not in names:
        raise ValueError(f"--source={source!r} is none of {', '.join(names)}.")
    manifest = read_manifest(directory / source)
    if options.split not in manifest.splits:
        raise ValueError(f"--split={options.split!r} is none of {', '.join(manifest.splits)}.")
    count = manifest.splits[options.split].num_documents
    number = options.document
    assert number is not None
    if not 0 <= number < count:
        raise ValueError(f"--document={number}: {source} {options.split} has 0 to {count - 1}.")
    tokenizer = load_tokenizer(find_tokenizer(directory))
    reader = SplitReader(directory / source, manifest, options.split)
    ((_, tokens),) = reader.read_tokens([number])
    return {
        "source": source,
        "split": options.split,
        "document": number,
        "id": reader.document_id(number),
        "text_bytes": int(reader.text_bytes_of[number]),
        "tokens": tokens.tolist(),
        "pieces": [tokenizer.piece(token) for token in tokens.tolist()],
        "text": tokenizer.decode(tokens),
    }


def _print_document(found: dict[str, Any]) -> None:
    print(f"{found['source']} {found['split']} {found['document']}: {found['id']}")
    print(f"{found['text_bytes']:,} bytes, {len(found['tokens']):,} tokens")
    pairs = zip(found["tokens"][:40], found["pieces"][:40], strict=True)
    print(" ".join(f"{token}:{piece}" for token, piece in pairs))
    print(found["text"])


def _step(directory: Path, options: _InspectOptions) -> dict[str, Any]:
    import numpy as np

    from llama_jax.config import DataConfig
    from llama_jax.data.dataset import open_dataset
    from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

    tokenizer = load_tokenizer(find_tokenizer(directory))
    dataset = open_dataset(
        DataConfig(
            directory=str(directory), seq_len=options.seq_len, shuffle_seed=options.shuffle_seed
        ),
        split=options.split,
        vocab_size=tokenizer.vocab_size,
        batch_size=options.batch_size,
    )
    assert options.step is not None
    first = options.step * options.batch_size
    batch = dataset.batch(first)
    rows = []
    for row, (inputs, segments) in enumerate(zip(batch.inputs, batch.segments, strict=True)):
        numbers = [number for number in np.unique(segments) if number]
        pieces = [inputs[segments == number] for number in numbers]
        rows.append(
            [
                {"row": row, "tokens": len(piece), "text": tokenizer.decode(piece)}
                for piece in pieces
            ]
        )
    documents = [found._asdict() for found in dataset.documents_of(first, options.batch_size)]
    return {"step": options.step, "first_sample": first, "rows": rows, "documents": documents}
