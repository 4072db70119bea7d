"""Show what a folder of token shards holds, and where it came from."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from llama_jax.plain_text import visible

USAGE = """usage: llama-jax data inspect DIR [--source NAME] [--split train|heldout]
           [--document N | --token N | --step N | --report] [--json]

Shows what a folder of token shards holds: what each stage of its build kept, a document or the one
that holds a token, with the raw record that it was made from, or the rows of a step.

examples:
  llama-jax data inspect demo_run/data
  llama-jax data inspect demo_run/data --source python --split heldout --document 0
  llama-jax data inspect demo_run/data --token 1000000
  llama-jax data inspect demo_run/data --step 10 --batch-size 4 --seq-len 256
  llama-jax data inspect demo_run/data --report"""

_AROUND_CHARACTERS = 300
_MAX_REASONS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `data inspect`."""

    source: str = ""
    """Source of the document shown; the first by default."""
    split: str = "train"
    """"train" or "heldout"."""
    document: int | None = None
    """Show this document of the split: its tokens and text, and the raw record it came from."""
    token: int | None = None
    """Show the document that holds this token of the split, and the text around it."""
    step: int | None = None
    """Show the rows of this update, counted from 1, as `data at-step` does."""
    batch_size: int = 4
    """Rows of the step shown."""
    seq_len: int = 256
    """Tokens of a row of the step shown."""
    shuffle_seed: int = 0
    """Seed of the order of the step shown."""
    report: bool = False
    """Show what was dropped and why, where the page about it is, and where all of it is listed."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax data inspect`."""
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    directory = Path(argv[0])
    options = tyro.cli(
        _Options,
        prog=f"llama-jax data inspect {argv[0]}",
        description=USAGE.partition("\n\n")[2],
        args=argv[1:],
    )
    _check_one_asked(options)
    if options.document is not None:
        found, show = _document(directory, options, options.document), _print_document
    elif options.token is not None:
        found, show = _token(directory, options), _print_token
    elif options.step is not None:
        found, show = _step(directory, options), _print_step
    elif options.report:
        found, show = _report(directory), _print_report
    else:
        found, show = _summary(directory), _print_dataset
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found, directory)
    return 0


def _check_one_asked(options: _Options) -> None:
    named = ("document", "token", "step")
    asked = [f"--{name}" for name in named if getattr(options, name) is not None]
    asked += ["--report"] * options.report
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)} are shown one at a time; give one of them.")


def print_summary(summary: dict[str, Any], directory: Path | str) -> None:
    """Prints what a build has made: counts, and what was left out."""
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
        dropped = sorted(source["dropped"].items(), key=lambda pair: (-pair[1], pair[0]))
        for reason, count in dropped[:_MAX_REASONS]:
            examples = ", ".join(source["dropped_examples"][reason][:2])
            told = f"{reason} ({examples}{', …' * (count > 2)})"
            print(f"  {name} left out {count:,}: {visible(told)}")
        if more := dropped[_MAX_REASONS:]:
            print(f"  {name} left out {sum(n for _, n in more):,} for {len(more)} more reasons")
    if deaths := summary.get("worker_deaths"):
        print(f"  workers died: {len(deaths):,}, at work on {' or '.join(deaths[0])} for one")
    if (page := _page(Path(directory))).is_file():
        print(f"In pictures: {page}")


def _summary(directory: Path) -> dict[str, Any]:
    from llama_jax.data.shards import BUILD, list_sources, read_manifest

    path = directory / BUILD
    if not path.is_file():
        raise ValueError(
            f"DIR={str(directory)!r} has no build.json: nothing was built there, or the build was "
            "killed; run `llama-jax data build` again."
        )
    for source in list_sources(directory):
        read_manifest(directory / source)
    return json.loads(path.read_text())


def _print_dataset(summary: dict[str, Any], directory: Path) -> None:
    counts = {name: source | {"dropped": {}} for name, source in summary["sources"].items()}
    print_summary(summary | {"sources": counts}, directory)
    if (directory / "report.json").is_file():
        _print_funnels(_report(directory))


def _report(directory: Path) -> dict[str, Any]:
    path = directory / "report.json"
    if not path.is_file():
        raise ValueError(
            f"DIR={str(directory)!r} has no report.json: nothing was built there, or by an older "
            "version; run `llama-jax data build` again."
        )
    return json.loads(path.read_text())


def _print_report(report: dict[str, Any], directory: Path) -> None:
    print(_page(directory))
    _print_funnels(report)
    for name, source in report["sources"].items():
        for reason, dropped in source["dropped"].items():
            first = "".join(f", such as {example['id']}" for example in dropped["examples"][:1])
            size = f" ({dropped['text_bytes']:,} bytes)" if dropped.get("text_bytes") else ""
            print(visible(f"{name} left out {dropped['count']:,}{size}: {reason}{first}"))
    if (rows := directory.absolute() / "dropped").is_dir():
        print(f"Every one of them, with its rule and value: {rows}/*.parquet")


def _page(directory: Path) -> Path:
    return directory.absolute() / "report.html"


def _print_funnels(report: dict[str, Any]) -> None:
    """A table for each source: what was left after each place, down to tokens."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from llama_jax.cli.pipelines import load_pipelines

    console = Console()
    if not console.is_terminal:
        # As wide as it is: a file has no edge at which to cut names.
        console = Console(width=160)
    for name, source in report["sources"].items():
        (label, columns), *rows = load_pipelines("report").funnel(source)
        table = Table(title=Text(name), box=box.SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
        table.add_column(label)
        for column in columns:
            table.add_column(column, justify="right")
        for row, cells in rows:
            table.add_row(Text(visible(row)), *map(Text, cells))
        console.print(table)


def _document(directory: Path, options: _Options, number: int) -> dict[str, Any]:
    from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

    reader = _open(directory, options)
    count = len(reader.num_tokens_of)
    if not 0 <= number < count:
        raise ValueError(
            f"--document={number}: {reader.name} {options.split} has 0 to {count - 1}."
        )
    tokenizer = load_tokenizer(find_tokenizer(directory))
    ((_, tokens),) = reader.read_tokens([number])
    return _provenance(directory, reader, number) | {
        "text_bytes": int(reader.text_bytes_of[number]),
        "tokens": tokens.tolist(),
        "pieces": [tokenizer.piece(token) for token in tokens.tolist()],
        "text": tokenizer.decode(tokens),
    }


def _open(directory: Path, options: _Options) -> Any:
    from llama_jax.data.shards import SplitReader, list_sources, read_manifest

    names = list_sources(directory)
    source = options.source or names[0]
    if source not in names:
        raise ValueError(f"--source={source!r} is none of {', '.join(names)}.")
    manifest = read_manifest(directory / source)
    if options.split not in manifest.splits:
        raise ValueError(f"--split={options.split!r} is none of {', '.join(manifest.splits)}.")
    return SplitReader(directory / source, manifest, options.split)


def _provenance(directory: Path, reader: Any, number: int) -> dict[str, Any]:
    """A document of a split: what shards and cleaned documents say of where it came from."""
    from llama_jax.cli.pipelines import load_pipelines

    config = _summary(directory)["config"]
    found = load_pipelines("provenance").find_document(
        directory, reader.name, reader.split, number, config["held_out_fraction"]
    )
    name = reader.document_id(number)
    if found is None or found.document.id != name:
        raise ValueError(
            f"DIR={str(directory)!r}: document {number} of {reader.name} {reader.split} is {name} "
            "in the shards and another one in documents/; build the data anew."
        )
    source = next(each for each in config["sources"] if each["name"] == reader.name)
    return {
        "source": reader.name,
        "split": reader.split,
        "document": number,
        "id": name,
        "raw": _raw_record(name, source.get("path", "")),
        "url": found.document.url,
        "language": found.document.language,
        "metadata": dict(found.document.metadata),
    }


def _raw_record(document_id: str, path: str) -> dict[str, str]:
    """The raw file, and what finds the record in it: empty where the file is the record."""
    file, _, record = document_id.partition(":")
    whole = not path or path.rstrip("/").rpartition("/")[2] == file
    return {"file": (path or file) if whole else f"{path.rstrip('/')}/{file}", "record": record}


def _print_document(found: dict[str, Any], directory: Path) -> None:
    _print_provenance(found)
    print(f"{found['text_bytes']:,} bytes, {len(found['tokens']):,} tokens")
    pairs = zip(found["tokens"][:40], found["pieces"][:40], strict=True)
    print(visible(" ".join(f"{token}:{piece}" for token, piece in pairs)))
    print(visible(found["text"]))


def _print_provenance(found: dict[str, Any]) -> None:
    raw = found["raw"]
    record = f", record {raw['record']}" if raw["record"] else ""
    lines = {
        "raw": f"{raw['file']}{record}",
        "url": found["url"],
        "language": found["language"],
        **found["metadata"],
    }
    print(visible(f"{found['source']} {found['split']} {found['document']}: {found['id']}"))
    for name, value in lines.items():
        if value:
            print(visible(f"  {name}: {value}"))


def _token(directory: Path, options: _Options) -> dict[str, Any]:
    import numpy as np

    from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

    reader, number = _open(directory, options), options.token
    count = int(reader.windows[-1, 1])
    if number is None or not 0 <= number < count:
        raise ValueError(f"--token={number}: {reader.name} {options.split} has 0 to {count - 1}.")
    window = int(np.searchsorted(reader.windows[:, 1], number, "right")) - 1
    (first, start), (end, _) = reader.windows[window], reader.windows[window + 1]
    ends = start + np.cumsum(reader.num_tokens_of[first:end], dtype=np.int64)
    row = int(np.searchsorted(ends, number, "right"))
    document = int(first) + row
    ((_, tokens),) = reader.read_tokens([document])
    position = number - (int(ends[row]) - len(tokens))
    tokenizer = load_tokenizer(find_tokenizer(directory))
    # Beginnings of the text are decoded: a piece alone could lack its space, or a part of a letter.
    text = tokenizer.decode(tokens)
    until, through = (
        _length_in_common(tokenizer.decode(tokens[:cut]), text) for cut in (position, position + 1)
    )
    return _provenance(directory, reader, document) | {
        "token": number,
        "position": position,
        "token_id": int(tokens[position]),
        "piece": tokenizer.piece(int(tokens[position])),
        "character": until,
        "before": text[max(until - _AROUND_CHARACTERS, 0) : until],
        "marked": text[until:through],
        "after": text[through : through + _AROUND_CHARACTERS],
        "num_tokens": len(tokens),
        "num_characters": len(text),
    }


def _length_in_common(beginning: str, text: str) -> int:
    while not text.startswith(beginning):
        beginning = beginning[:-1]
    return len(beginning)


def _print_token(found: dict[str, Any], directory: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    _print_provenance(found)
    print(
        visible(
            f"token {found['token']:,} is number {found['position']:,} of its "
            f"{found['num_tokens']:,}: id {found['token_id']}, {found['piece']!r}, at character "
            f"{found['character']:,} of {found['num_characters']:,}"
        )
    )
    before, marked, after = (visible(found[part]) for part in ("before", "marked", "after"))
    text = Text.assemble(before, (f"⟦{marked or found['piece']}⟧", "bold reverse"), after)
    Console(soft_wrap=True).print(text)


def _step(directory: Path, options: _Options) -> dict[str, Any]:
    asked = {
        "--step": options.step,
        "--batch-size": options.batch_size,
        "--seq-len": options.seq_len,
    }
    for flag, value in asked.items():
        if value is None or value < 1:
            raise ValueError(f"{flag}={value} must be 1 or more; updates are counted from 1.")
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
    first = (options.step - 1) * options.batch_size
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


def _print_step(found: dict[str, Any], directory: Path) -> None:
    for row in found["rows"]:
        for piece in row:
            print(visible(f"--- row {piece['row']}, {piece['tokens']} tokens\n{piece['text']}"))
    names = (visible(document["id"]) for document in found["documents"])
    print("documents:", *names, sep="\n  ")
