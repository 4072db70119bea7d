"""What an export knows of where its weights and words come from."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llama_jax.checksum import file_sha256
from llama_jax.cli.convert.checkpoint import Checkpoint
from llama_jax.cli.run_reader import find_run_tokenizer, latest_losses
from llama_jax.config import RunConfig

if TYPE_CHECKING:
    from llama_jax.convert.origin import Origin
    from llama_jax.convert.tiktoken import Vocabulary
    from llama_jax.convert.words import Words


def origin_of(run_dir: Path, config: RunConfig, saved: Checkpoint) -> "Origin":
    """What a run recorded of a checkpoint."""
    from llama_jax.convert.origin import Origin

    return Origin(
        step=saved.step,
        tokens=saved.meta.get("tokens", 0),
        losses=latest_losses(run_dir, saved.step),
        libraries=saved.meta.get("versions", {}),
        datasets=_manifests(config),
        imported=saved.imported,
    )


def _manifests(config: RunConfig) -> dict[str, str]:
    from llama_jax.data.shards import MANIFEST

    if not config.data.directory:
        return {}
    found = sorted(Path(config.data.directory).glob(f"*/{MANIFEST}"))
    return {path.parent.name: file_sha256(path) for path in found}


def find_words(
    run_dir: Path, config: RunConfig, origin: "Origin", *, with_tokenizer: bool
) -> "Words":
    """Those that an export of a run writes: of its import, or made of its own tokenizer.

    Raises:
        ValueError: If there is no tokenizer, or it cannot be exported.
    """
    from llama_jax.convert.words import (
        FOLDER,
        kept_words,
        no_words,
        with_tokenizer_of,
        words_beside,
        words_of,
    )

    own = _own_tokenizer(run_dir, config)
    if origin.imported.get("conversion") == "from-hf":
        if not (origin.is_trained and _is_another(own, run_dir / FOLDER)):
            said = origin.imported["config"]
            kept = kept_words(run_dir, said, with_tokenizer=with_tokenizer)
            if kept.has_tokenizer or not with_tokenizer:
                return kept
            if own is None:
                raise ValueError(
                    f"RUN_DIR={str(run_dir)!r} was imported without a tokenizer; export without "
                    "one (--without-tokenizer), or copy it into the run's folder."
                )
            return with_tokenizer_of(words_of(_exportable(own), config.model.max_seq_len), kept)
        if words_beside(run_dir / FOLDER):
            print(
                f"note: {own} is not the tokenizer that the run was imported with; that which it "
                "was trained with is exported",
                file=sys.stderr,
            )
    if not with_tokenizer:
        return no_words()
    path = find_run_tokenizer(run_dir, config)
    return words_of(_exportable(path), config.model.max_seq_len)


def _own_tokenizer(run_dir: Path, config: RunConfig) -> Path | None:
    try:
        return find_run_tokenizer(run_dir, config)
    except ValueError:
        return None


def _is_another(own: Path | None, kept: Path) -> bool:
    """Whether a run has a tokenizer that is not the one that it was imported with."""
    if own is None:
        return False
    return not any(
        path.is_file() and path.read_bytes() == own.read_bytes()
        for path in (kept / "tokenizer.model", kept / "tokenizer.tiktoken")
    )


def _exportable(path: Path) -> "Path | Vocabulary":
    from llama_jax.convert.tiktoken import Vocabulary
    from llama_jax.data.tiktoken import TiktokenTokenizer
    from llama_jax.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(path)
    if not isinstance(tokenizer, TiktokenTokenizer):
        return path
    names = {token: name for name, token in tokenizer.special.items()}
    return Vocabulary(
        path=path,
        ranks=tokenizer.ranks,
        pattern=tokenizer.pattern,
        special=tokenizer.special,
        bos=names[tokenizer.bos_id],
        eos=names[tokenizer.eos_id],
    )
