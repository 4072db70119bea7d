"""Checkpoints to PyTorch and back."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

from llama_jax.cli.convert_import import from_hugging_face
from llama_jax.cli.run_reader import (
    find_run_tokenizer,
    held_out_losses,
    read_config,
    read_model,
)
from llama_jax.config import MeshConfig

_DESCRIPTION = """Exports a checkpoint as the folder that transformers reads: safetensors weights,
config, tokenizer and model card. The folder is complete or absent.

example:
  llama-jax convert to-hf demo_run/model demo_run/hf"""

_USAGE = """usage: llama-jax convert FORMAT ...

  to-hf RUN_DIR OUT_DIR    export a checkpoint as the folder that transformers reads
  from-hf HF_DIR OUT_DIR   import such a folder as a run with one checkpoint

example:
  llama-jax convert to-hf demo_run/model demo_run/hf
  llama-jax convert from-hf demo_run/hf imported

`llama-jax convert FORMAT --help` lists every option."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to export, and to where.

    Attributes:
        run_dir: Folder that `llama-jax train` wrote.
        out_dir: Folder to write; must be absent or empty.
        step: Of the checkpoint; the newest by default.
        dtype: Of the written weights; bfloat16 rounds them to nearest even.
        without_tokenizer: Whether to leave the tokenizer out.
        max_shard_gigabytes: Of weights in one file, in 10^9 bytes.
        json: Whether to print one JSON document.
    """

    run_dir: Positional[Path]
    out_dir: Positional[Path]
    step: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    without_tokenizer: bool = False
    max_shard_gigabytes: float = 5.0
    json: bool = False


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "to-hf":
        return _to_hugging_face(argv[1:])
    if argv[0] == "from-hf":
        return from_hugging_face(argv[1:])
    raise ValueError(f"FORMAT={argv[0]!r} is no format; there are: to-hf, from-hf.")


def _to_hugging_face(argv: list[str]) -> int:
    options = tyro.cli(Options, prog="llama-jax convert to-hf", description=_DESCRIPTION, args=argv)
    config = read_config(options.run_dir)
    tokenizer = None if options.without_tokenizer else find_run_tokenizer(options.run_dir, config)

    import jax
    from flax import nnx

    from llama_jax.convert.hugging_face import check_out_dir, export_hugging_face
    from llama_jax.convert.mapping import tensors_of
    from llama_jax.convert.model_card import Origin
    from llama_jax.convert.tokenizer import read_sentencepiece
    from llama_jax.observe.progress import Progress
    from llama_jax.sharding import make_mesh, use_layout

    # What would be refused at the end is refused before anything is read.
    check_out_dir(options.out_dir)
    if tokenizer is not None:
        read_sentencepiece(tokenizer)
    with use_layout(make_mesh(MeshConfig(), devices=jax.local_devices()[:1])):
        saved = read_model(options.run_dir, config, options.step)
    params = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(saved.params)}
    total = sum(1 for _ in tensors_of(config.model))
    written = itertools.count(1)
    with Progress("export", total=total, unit="tensors") as progress:
        exported = export_hugging_face(
            params,
            config,
            options.out_dir,
            origin=Origin(
                step=saved.step,
                tokens=saved.meta.get("tokens", 0),
                held_out_nats_per_token=held_out_losses(options.run_dir, saved.step),
                libraries=saved.meta.get("versions", {}),
            ),
            tokenizer_file=tokenizer,
            dtype=options.dtype,
            max_shard_bytes=int(options.max_shard_gigabytes * 1e9),
            on_tensor=lambda name, num_bytes: progress.advance(next(written)),
        )
    if options.json:
        facts = dataclasses.asdict(exported) | {"directory": str(exported.directory)}
        print(json.dumps(facts | {"step": saved.step, "dtype": options.dtype}))
    print(
        f"{exported.directory}: {exported.num_params:,} parameters, "
        f"{exported.num_bytes / 1e6:,.1f} MB of {options.dtype}, {len(exported.files)} files",
        file=sys.stderr,
    )
    return 0
