"""Raw documents to windows of tokens, one after the other, epoch after epoch."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Integer

from llama_jax.data.documents import DocumentsInMemory
from llama_jax.data.order import permutation
from llama_jax.data.shards import WINDOW_DOCUMENTS, token_dtype
from llama_jax.data.tokenizer import Tokenizer
from llama_jax.data.window_index import Place, Window

# Smaller than a shard's: the first window has to be read before the first step.
WINDOW_TOKENS = 1 << 20
_BATCH_CHARACTERS = 1 << 20


class RawSource(Protocol):
    """Documents of one source as they are read, filtered, from its raw files.

    Attributes:
        name: Of the source.
    """

    name: str

    @property
    def files(self) -> Sequence[str]:
        """Names of its files, in order."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """About how many bytes of text each file holds."""
        ...

    def fingerprints(self) -> Mapping[str, str]:
        """What changes when a file does, or what a filter reads beside them, by name."""
        ...

    def expect(self, files: Sequence[int]) -> None:
        """Is told which files will be asked for next, in this order."""
        ...

    def documents(
        self, file: int, is_wanted: Callable[[], bool] = ...
    ) -> Iterator[tuple[str, str, bool]]:
        """Id, text, and whether it is held out, of each document of a file, in order.

        The same at every call, but that it ends where `is_wanted` says no.
        """
        ...

    def left_out(self) -> Sequence[str]:
        """What was left out so far, for people; one reason a line."""
        ...

    def close(self) -> None:
        """Ends what reads ahead."""
        ...


class Filled(NamedTuple):
    """A window and its documents.

    Attributes:
        window: Where it is, and how large.
        documents: For training, in the order of the raw files.
        held_out: Documents passed over on the way, for the very first window alone.
    """

    window: Window
    documents: DocumentsInMemory
    held_out: DocumentsInMemory


class _Document(NamedTuple):
    place: Place
    id: str
    text: str
    held_out: bool


class _Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """Nobody wants what comes next."""


class WindowReader:
    """Reads windows from a place on, in a thread that is one window ahead.

    Args:
        raw: The source.
        tokenizer: Of the run.
        seed: Of the order of files.
        first: Number of the first window.
        place: Where that one begins.
        num_threads: Of the tokenizer.
    """

    def __init__(
        self,
        raw: RawSource,
        tokenizer: Tokenizer,
        *,
        seed: int,
        first: int,
        place: Place,
        num_threads: int,
    ):
        self._raw, self._tokenizer, self._num_threads = raw, tokenizer, num_threads
        self._seed = seed
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"stream-{raw.name}")
        self._windows = self._read(place)
        self.next = first
        self._ready: Future[Filled] | None = None

    def take(self) -> Filled:
        """The next window.

        Raises:
            ValueError: If the source has no documents.
        """
        filled = (self._ready or self._submit()).result()
        self.next += 1
        self._ready = self._submit()
        return filled

    def close(self) -> None:
        """Stops reading, at the next document, one that a filter would drop too."""
        self._stop.set()
        self._thread.shutdown()

    def _submit(self) -> Future[Filled]:
        return self._thread.submit(next, self._windows)

    def _read(self, place: Place) -> Iterator[Filled]:
        wants_held_out = place == Place()
        while True:
            is_empty, pending = place.record == place.turn == 0, _Filling(place)
            for document, tokens in self._encoded(place, wants_held_out):
                if document.held_out:
                    if wants_held_out:
                        pending.held_out.append((document, tokens))
                    continue
                pending.training.append((document, tokens))
                pending.num_tokens += len(tokens)
                is_empty = False
                if pending.is_full:
                    yield self._filled(pending)
                    after = document.place._replace(record=document.place.record + 1)
                    wants_held_out, pending = False, _Filling(after)
            if pending.training:
                yield self._filled(pending)
                wants_held_out = False
            if is_empty:
                raise ValueError(
                    f"stream.sources.{self._raw.name} is empty: no document is left for training "
                    f"({'; '.join(self._raw.left_out()) or 'nothing was read'})."
                )
            place = Place(place.epoch + 1)

    def _encoded(
        self, place: Place, wants_held_out: bool
    ) -> Iterator[tuple[_Document, Integer[np.ndarray, " _"]]]:
        """Documents of an epoch from a place on, encoded in batches of about a million letters."""
        batch: list[_Document] = []
        size = 0
        for document in self._documents(place):
            if document.held_out and not wants_held_out:
                continue
            batch.append(document)
            size += len(document.text)
            if size >= _BATCH_CHARACTERS:
                yield from self._encode(batch)
                batch, size = [], 0
        yield from self._encode(batch)

    def _encode(
        self, batch: list[_Document]
    ) -> Iterator[tuple[_Document, Integer[np.ndarray, " _"]]]:
        texts = [document.text for document in batch]
        tokens = self._tokenizer.encode_batch(
            texts, bos=True, eos=True, num_threads=self._num_threads
        )
        yield from zip(batch, (each.astype(self._dtype) for each in tokens), strict=True)

    def _documents(self, place: Place) -> Iterator[_Document]:
        order = file_order(self._raw, self._seed, place.epoch)
        self._raw.expect(order[place.turn :])
        for turn in range(place.turn, len(order)):
            skipped = place.record if turn == place.turn else 0
            documents = self._raw.documents(order[turn], lambda: not self._stop.is_set())
            for record, (name, text, held_out) in enumerate(documents):
                if record >= skipped and not self._stop.is_set():
                    yield _Document(Place(place.epoch, turn, record), name, text, held_out)
            if self._stop.is_set():
                raise _Stopped

    def _filled(self, pending: "_Filling") -> Filled:
        order = file_order(self._raw, self._seed, pending.place.epoch)
        window = Window(
            *pending.place,
            file=self._raw.files[order[pending.place.turn]],
            documents=len(pending.training),
            tokens=pending.num_tokens,
        )
        in_memory = (self._in_memory(each) for each in (pending.training, pending.held_out))
        return Filled(window, *in_memory)

    def _in_memory(
        self, documents: list[tuple[_Document, Integer[np.ndarray, " _"]]]
    ) -> DocumentsInMemory:
        return DocumentsInMemory(
            self._raw.name,
            [tokens for _, tokens in documents],
            [len(document.text.encode()) for document, _ in documents],
            [document.id for document, _ in documents],
            self._dtype,
        )


class _Filling:
    """Documents of a window that is not full yet."""

    def __init__(self, place: Place):
        self.place = place
        self.training: list[tuple[_Document, Integer[np.ndarray, " _"]]] = []
        self.held_out: list[tuple[_Document, Integer[np.ndarray, " _"]]] = []
        self.num_tokens = 0

    @property
    def is_full(self) -> bool:
        return len(self.training) >= WINDOW_DOCUMENTS or self.num_tokens >= WINDOW_TOKENS


def file_order(raw: RawSource, seed: int, epoch: int) -> list[int]:
    """Numbers of a source's files, in the order in which an epoch reads them."""
    return permutation(len(raw.files), seed, raw.name, "files", epoch).tolist()
