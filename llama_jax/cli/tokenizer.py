"""Train or inspect a tokenizer."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

_USAGE = """usage: llama-jax tokenizer train --input FILE_OR_FOLDER --out FILE.model [...]
       llama-jax tokenizer inspect FILE [--text TEXT]

Trains a SentencePiece tokenizer with LLaMA's settings, or shows what one does with a text.

examples:
  llama-jax tokenizer train --input my_texts/ --out my.model --vocab-size 8000
  llama-jax tokenizer inspect my.model --text "Hello, world" """


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainOptions:
    """Options of `tokenizer train`."""

    input: str
    """A .txt, .md, .jsonl(.gz/.zst) or .parquet file, or a folder of them; "python" takes the
    sources and documentation of this machine's Python."""
    out: Path
    """File to write."""
    vocab_size: int = 32_000
    """Pieces, bytes and special tokens included."""
    sample_bytes: int = 100_000_000
    """Text that it is trained on, at most."""
    text_field: str = "text"
    """Column or JSON key that holds a document's text."""
    json: bool = False
    """Print one JSON document on stdout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InspectOptions:
    """Options of `tokenizer inspect`."""

    text: str = ""
    """Text to encode and decode again."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax tokenizer`."""
    if argv[:1] == ["train"]:
        return _train(argv[1:])
    if argv[:1] == ["inspect"]:
        return _inspect(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        raise ValueError(
            f"tokenizer {argv[0]!r} is no command. There are: tokenizer train, tokenizer inspect."
        )
    print(_USAGE, file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2


def _train(argv: list[str]) -> int:
    import os

    import tyro

    from llama_jax.config import TokenizerTraining
    from llama_jax.data.sentencepiece import train_sentencepiece

    options = tyro.cli(
        _TrainOptions, prog="llama-jax tokenizer train", description=_USAGE, args=argv
    )
    named = options.input
    if named != "python" and "://" not in named and not Path(named).exists():
        raise ValueError(
            f"--input={named}: there is no such file or folder; give texts, a folder of them, or "
            "python for those of this machine's Python."
        )
    training = TokenizerTraining(vocab_size=options.vocab_size, sample_bytes=options.sample_bytes)
    if options.out.exists():
        raise ValueError(f"--out={options.out} exists; name a new file, or delete that one.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"training on at most {training.sample_bytes:,} bytes ...", file=sys.stderr)
    train_sentencepiece(
        _sample(options),
        options.out,
        vocab_size=training.vocab_size,
        num_threads=os.cpu_count() or 1,
    )
    return _inspect([str(options.out), *["--json"] * options.json])


def _sample(options: _TrainOptions) -> Iterator[str]:
    """Texts by hash until there are enough; what was left out is said on stderr."""
    import tempfile

    from llama_jax.cli.pipelines import load_pipelines
    from llama_jax.config import FilesSource, PythonEnvironmentSource

    if options.input == "python":
        config = PythonEnvironmentSource()
    else:
        config = FilesSource(path=options.input, text_field=options.text_field)
    dropped = load_pipelines("document").Dropped()
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        yield from load_pipelines("runner").sample(
            config, options.sample_bytes, Path(folder), dropped
        )
    for reason, count in sorted(dropped.counts.items()):
        examples = ", ".join(dropped.examples[reason][:2])
        print(f"left out {count:,}: {reason} ({examples})", file=sys.stderr)


def _inspect(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.data.tokenizer import load_tokenizer

    options = tyro.cli(
        _InspectOptions,
        prog=f"llama-jax tokenizer inspect {argv[0]}",
        description=_USAGE,
        args=argv[1:],
    )
    tokenizer = load_tokenizer(argv[0])
    ids = tokenizer.encode(options.text).tolist()
    found = {
        "file": argv[0],
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "bos": {"id": tokenizer.bos_id, "piece": tokenizer.piece(tokenizer.bos_id)},
        "eos": {"id": tokenizer.eos_id, "piece": tokenizer.piece(tokenizer.eos_id)},
        "lossless": tokenizer.lossless,
        "sha256": tokenizer.sha256,
        "text": options.text,
        "ids": ids,
        "pieces": [tokenizer.piece(token) for token in ids],
        "decoded": tokenizer.decode(ids),
    }
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for name in ("file", "kind", "vocab_size", "bos", "eos", "lossless", "sha256"):
        print(f"{name:<12}{found[name]}")
    if options.text:
        pairs = zip(ids, found["pieces"], strict=True)
        print(" ".join(f"{token}:{piece}" for token, piece in pairs))
        print(f"{len(ids)} tokens; decoded: {found['decoded']!r}")
    return 0
