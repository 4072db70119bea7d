"""What a run reads: shards, or raw documents in a stream."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llama_jax import recipe
from llama_jax.config import BuildConfig, RunConfig, TokenizerFile
from llama_jax.data.dataset import Dataset, open_dataset
from llama_jax.data.held_out import HeldOut, held_out_batches
from llama_jax.data.identity import Identity
from llama_jax.data.raw import RawSource
from llama_jax.data.streamed import StreamedDataset, open_stream
from llama_jax.data.tokenizer import (
    SENTENCEPIECE_NAME,
    TIKTOKEN_NAME,
    find_tokenizer,
    load_tokenizer,
)
from llama_jax.remote.dataset import local_dataset
from llama_jax.train.beginning import Origin

# Opens the sources of a data recipe; this package does not know how raw documents are read.
OpenRaw = Callable[[BuildConfig], Sequence[RawSource]]
STREAM_FOLDER = "stream"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What a run reads.

    Attributes:
        config: Of the run.
        dataset: Its samples.
        tokenizer: File of the tokenizer.
        tokenizer_name: What a copy of it is called.
    """

    config: RunConfig
    dataset: Dataset
    tokenizer: Path
    tokenizer_name: str

    @property
    def identity(self) -> Identity:
        """What tells them from others."""
        return self.dataset.identity

    @property
    def where(self) -> str:
        """Where they are, as a field of the config."""
        if self.config.stream is not None:
            return f"stream={self.config.stream.name!r}"
        return f"data.directory={self.config.data.directory!r}"

    def held_out(self, *, rows: range, batch_size: int | None = None) -> dict[str, HeldOut]:
        """Documents to score, of the sources that have any.

        Args:
            rows: Which rows of each batch this process reads.
            batch_size: Rows of a batch, which do not decide what is scored; the run's by default.

        Raises:
            ValueError: If the shards are not what they should be, or no document fits.
        """
        size = batch_size or self.config.train.batch_size
        found = {source: self._held_out(source, rows, size) for source in self.dataset.sources}
        return {source: held_out for source, held_out in found.items() if held_out is not None}

    def left_out(self) -> list[str]:
        """What a stream left out since this process began; one line a source."""
        if not isinstance(self.dataset, StreamedDataset):
            return []
        return [
            f"left out of {source} so far: {'; '.join(reasons)}"
            for source, reasons in self.dataset.left_out().items()
            if reasons
        ]

    def _held_out(self, source: str, rows: range, batch_size: int) -> HeldOut | None:
        config = self.config
        max_rows = config.evaluate.num_batches * config.train.batch_size
        if isinstance(self.dataset, StreamedDataset):
            documents = self.dataset.held_out(source)
            if not len(documents.num_tokens_of):
                return None
            return HeldOut(
                documents,
                seq_len=config.data.seq_len,
                batch_size=batch_size,
                vocab_size=config.model.vocab_size,
                max_rows=max_rows,
                rows=rows,
            )
        return held_out_batches(
            config.data.directory,
            source,
            seq_len=config.data.seq_len,
            batch_size=batch_size,
            vocab_size=config.model.vocab_size,
            max_rows=max_rows,
            rows=rows,
        )


@contextlib.contextmanager
def open_data(
    config: RunConfig,
    run_dir: Path,
    open_raw: OpenRaw | None,
    *,
    write: bool,
    origin: Origin | None = None,
) -> Iterator[Data]:
    """Opens what a run reads; reads no tokens yet.

    Args:
        config: Of the run.
        run_dir: Folder of the run, which keeps what is known of a stream.
        open_raw: Opens raw documents; only a stream needs it.
        write: Whether to write there.
        origin: Where the run branched off: that run knows the stream so far.

    Raises:
        ValueError: As `open_dataset` and `open_stream`, or if a stream cannot be opened.
    """
    batch_size, vocab_size = config.train.batch_size, config.model.vocab_size
    if config.stream is None:
        here = dataclasses.replace(config.data, directory=local_dataset(config.data.directory))
        config = dataclasses.replace(config, data=here)
        dataset = open_dataset(config.data, vocab_size=vocab_size, batch_size=batch_size)
        path = find_tokenizer(config.data.directory)
        yield Data(config=config, dataset=dataset, tokenizer=path, tokenizer_name=path.name)
        return
    if open_raw is None:
        raise ValueError(
            f"stream={config.stream.name!r}: this caller cannot read raw documents; start the run "
            "with `llama-jax train`, or give open_raw=data_pipelines.stream.open_raw."
        )
    assert isinstance(config.stream.tokenizer, TokenizerFile), "the config has checked it"
    if write and not (run_dir / "config.json").is_file():
        # Of a start that was refused: what it noted binds nobody.
        shutil.rmtree(run_dir / STREAM_FOLDER, ignore_errors=True)
    if write and origin is not None:
        _take_over(config, Path(origin.run_dir), run_dir / STREAM_FOLDER)
    tokenizer = load_tokenizer(config.stream.tokenizer.path)
    streamed = open_stream(
        config.data,
        config.stream,
        open_raw(config.stream),
        tokenizer,
        vocab_size=vocab_size,
        batch_size=batch_size,
        folder=run_dir / STREAM_FOLDER,
        write=write,
        num_threads=len(os.sched_getaffinity(0)),
    )
    with contextlib.closing(streamed):
        name = SENTENCEPIECE_NAME if tokenizer.kind == "sentencepiece" else TIKTOKEN_NAME
        yield Data(config=config, dataset=streamed, tokenizer=tokenizer.path, tokenizer_name=name)


def _take_over(config: RunConfig, theirs: Path, ours: Path) -> None:
    """Copies what another run knows of the same stream, which would be long to find out again."""
    if ours.exists() or not (theirs / STREAM_FOLDER).is_dir():
        return
    other: RunConfig = recipe.from_json((theirs / "config.json").read_text())
    if (other.stream, other.data.shuffle_seed) == (config.stream, config.data.shuffle_seed):
        partial = ours.with_name(f"{ours.name}.partial")
        shutil.copytree(theirs / STREAM_FOLDER, partial, dirs_exist_ok=True)
        partial.rename(ours)
