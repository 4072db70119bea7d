"""Signatures of documents: how many of their minima agree says how alike two texts are.

A text is the set of its n-grams of words, in lower case and without punctuation. Each row of a
signature is the smallest n-gram in another pseudo-random order; two texts agree in it with the
probability that is their Jaccard similarity, |common n-grams| / |all n-grams|.

Words are hashed eight bytes at a time, straight from the text's bytes, and orders are made by one
multiplication: n-grams are 64-bit hashes, so uniform, and an odd factor modulo 2^64 permutes
them. So every row is unbiased, and a row of a million n-grams takes half a millisecond.

Source: Broder 1997, "On the resemblance and containment of documents"; the defaults' 5-grams and
14 bands of 8 rows as in FineWeb, Penedo et al. 2024 (arXiv:2406.17557), section 3.4.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from llama_jax.config import MinHash

from .spill import RowWriter, read_rows

# Longer texts are taken in pieces, and n-grams across two pieces are not seen.
_PIECE_CHARACTERS = 1 << 18
_BATCH_CHARACTERS = 1 << 18
_BATCH_PIECES = 1024
# Of a longer word, such as base64, these bytes and the length are hashed.
_MAX_WORD_BYTES = 128
# Of 64-bit numbers, what one core's second-level cache holds twice.
_BLOCK = 1 << 15
_READ_ROWS = 128

_SCRIPTS_WITHOUT_SPACES = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007)),
    *((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
)
_MULTIPLIER = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)


class Signatures(NamedTuple):
    """Signatures of some texts.

    Attributes:
        minima: One row a text; its smallest n-gram in each order.
        num_words: Of each text; one without words has no signature, and its minima mean nothing.
    """

    minima: np.ndarray
    num_words: np.ndarray


class Signer:
    """Makes signatures; the same for the same text and config on any machine.

    Args:
        config: n-grams, bands, rows and seed.
    """

    def __init__(self, config: MinHash):
        random = np.random.Generator(np.random.Philox(config.seed))
        count = config.bands * config.rows + config.ngram
        odd = random.integers(0, 1 << 63, count, np.uint64) << np.uint64(1) | np.uint64(1)
        self._orders, self._places = np.split(odd, [config.bands * config.rows])

    def sign(self, texts: Sequence[str]) -> Signatures:
        """Signatures of texts of any length, in order."""
        minima = np.full((len(texts), len(self._orders)), np.iinfo(np.uint64).max, np.uint64)
        num_words = np.zeros(len(texts), np.int64)
        for owners, pieces in _batches(texts):
            found, words = self._sign(pieces)
            at = np.array(owners)
            np.add.at(num_words, at, words)
            np.minimum.at(minima, at[words > 0], found)
        return Signatures(minima, num_words)

    def _sign(self, pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Minima of the pieces that have words; words of each piece."""
        words, num_words = _hash_words(pieces)
        grams, num_grams = self._ngrams(words, num_words[num_words > 0])
        return self._minima(grams, num_grams), num_words

    def _ngrams(self, words: np.ndarray, num_words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(self._places)
        padded = np.append(words, np.zeros(n, np.uint64))
        grams = words * self._places[0]
        for place in range(1, n):
            grams += padded[place : place + len(words)] * self._places[place]
        starts = np.cumsum(num_words) - num_words
        for short in np.flatnonzero(num_words < n):
            at, size = starts[short], num_words[short]
            grams[at] = np.sum(words[at : at + size] * self._places[:size])
        num_grams = np.maximum(num_words - n + 1, 1)
        place = np.arange(len(words)) - np.repeat(starts, num_words)
        return _mix(grams[place < np.repeat(num_grams, num_words)]), num_grams

    def _minima(self, grams: np.ndarray, num_grams: np.ndarray) -> np.ndarray:
        starts = np.cumsum(num_grams) - num_grams
        cuts = np.union1d(starts, np.arange(0, len(grams), _BLOCK))
        parts = np.empty((len(self._orders), len(cuts)), np.uint64)
        buffer = np.empty(min(_BLOCK, len(grams)), np.uint64)
        for start in range(0, len(grams), _BLOCK):
            block = grams[start : start + _BLOCK]
            low, high = np.searchsorted(cuts, (start, start + _BLOCK))
            ordered, at = buffer[: len(block)], cuts[low:high] - start
            for order, out in zip(self._orders, parts[:, low:high], strict=True):
                np.multiply(block, order, out=ordered)
                np.minimum.reduceat(ordered, at, out=out)
        if not len(starts):
            return parts.T
        return np.minimum.reduceat(parts, np.searchsorted(cuts, starts), axis=1).T


def sign(documents: Path, out: Path, config: MinHash) -> None:
    """Writes the signatures of a bucket's documents, but for those without a word.

    A row is a document's digest, its length in characters, a byte of the hash of each of its
    minima, and a key for each band: documents that share it agree in all of the band's rows.

    Args:
        documents: Bucket as Parquet with the columns `digest` and `text`, in order of digest.
        out: Where signatures are written.
        config: n-grams, bands, rows and seed.
    """
    signer = Signer(config)
    with RowWriter(out, signature_schema(config)) as writer:
        for batch in read_rows(documents, ("digest", "text"), _READ_ROWS):
            texts = batch.column("text").to_pylist()
            minima, num_words = signer.sign(texts)
            rows = np.flatnonzero(num_words)
            lengths = np.array([len(text) for text in texts], np.int64)
            columns = [batch.column("digest").take(rows), pa.array(lengths[rows])]
            minima = minima[rows]
            columns += [pa.array(keys) for keys in _band_keys(minima, config)]
            # Hashed, since the last bytes of a number's products with two odd factors are related.
            columns.insert(2, _as_binary(_mix(minima).astype(np.uint8)))
            writer.write(pa.table(columns, schema=writer.schema))


def signature_schema(config: MinHash) -> pa.Schema:
    """Columns of a file of signatures."""
    return pa.schema(
        [
            ("digest", pa.binary(32)),
            ("length", pa.int64()),
            ("bytes", pa.binary(config.bands * config.rows)),
            *((band_column(band), pa.uint64()) for band in range(config.bands)),
        ]
    )


def band_column(band: int) -> str:
    """Name of the column with a band's keys."""
    return f"band_{band:03d}"


def _as_binary(rows: np.ndarray) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, data])


def _band_keys(minima: np.ndarray, config: MinHash) -> np.ndarray:
    rows = minima.reshape(len(minima), config.bands, config.rows)
    keys = np.zeros((config.bands, len(minima)), np.uint64)
    for row in range(config.rows):
        keys = _mix((keys ^ rows[:, :, row].T) * _MULTIPLIER)
    return keys


def _mix(hashes: np.ndarray) -> np.ndarray:
    hashes ^= hashes >> _HALF
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _HALF
    return hashes


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[int], list[bytes]]]:
    owners: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for owner, text in enumerate(texts):
        for start in range(0, len(text), _PIECE_CHARACTERS):
            piece = plain(text[start : start + _PIECE_CHARACTERS])
            if pieces and (size + len(piece) > _BATCH_CHARACTERS or len(pieces) == _BATCH_PIECES):
                yield owners, pieces
                owners, pieces, size = [], [], 0
            owners.append(owner)
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield owners, pieces


_ASCII = bytes(
    ord(character.lower()) if character.isalnum() else ord(" ")
    for character in map(chr, range(128))
) + bytes(range(128, 256))


def plain(text: str) -> bytes:
    """The words of a text in lower case, with spaces between, as UTF-8.

    Words are runs of letters, digits and accents: punctuation and symbols separate them. In scripts
    without spaces (Chinese, Japanese, Thai ...) each character is a word.
    """
    if not text.isascii():
        text = _with_plain_units(text)
    return text.encode("utf-8", "replace").translate(_ASCII)


def _with_plain_units(text: str) -> str:
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").copy()
    at = np.flatnonzero(units > 127)
    others = _becomes()[units[at]]
    units[at] = others
    if np.any((others >= 0x2E80) | (others >= 0x0E00) & (others < 0x1800)):
        spaceless = at[_is_spaceless()[others]]
        # A space on both sides of each; those between two of them are one.
        border = np.zeros(len(units) + 1, bool)
        border[spaceless] = border[spaceless + 1] = True
        units = np.insert(units, np.flatnonzero(border), 32)
    return units.tobytes().decode("utf-16-le", "replace")


@functools.cache
def _becomes() -> np.ndarray:
    """What each UTF-16 unit becomes; halves of characters beyond the first 65,536 stay."""
    becomes = np.arange(1 << 16, dtype=np.uint16)
    for code in range(1 << 16):
        character = chr(code)
        if unicodedata.category(character)[0] in "LNM":
            becomes[code] = ord(character.lower()[0])
        elif not 0xD800 <= code < 0xE000:
            becomes[code] = ord(" ")
    return becomes


@functools.cache
def _is_spaceless() -> np.ndarray:
    """Which UTF-16 units are characters that count as words."""
    spaceless = np.zeros(1 << 16, bool)
    for first, last in _SCRIPTS_WITHOUT_SPACES:
        spaceless[first : last + 1] = True
    return spaceless


def _hash_words(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words of all pieces, end to end, and words of each piece."""
    joined = b"".join((b" ", b" ".join(pieces), b" " * 9))
    data = np.frombuffer(joined, np.uint8)
    is_space = data == 32
    borders = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    starts, lengths = borders[::2], borders[1::2] - borders[::2]
    # Eight bytes from any place on, of which those beyond the word are masked.
    eights = np.ndarray(len(data) - 7, "<u8", joined, strides=(1,))
    hashes = _mix(lengths.astype(np.uint64))
    at, left, longer = starts, np.minimum(lengths, _MAX_WORD_BYTES), np.arange(len(starts))
    while len(longer):
        chunk = eights[at] & _MASKS[np.minimum(left, 8)]
        hashes[longer] = _mix((hashes[longer] ^ chunk) * _MULTIPLIER)
        more = left > 8
        longer, at, left = longer[more], at[more] + 8, left[more] - 8
    ends = np.cumsum([len(piece) + 1 for piece in pieces])
    num_words = np.diff(np.searchsorted(starts, ends, side="right"), prepend=0)
    return hashes, num_words


_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
