"""A model's tensors in the Hugging Face layout, not yet read, whatever holds them."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llama_jax.config import ModelConfig
from llama_jax.convert.stored import PIECE_BYTES, numpy_dtype


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A model's tensors in the Hugging Face layout, not yet read.

    Attributes:
        model: Its shape.
        dtypes: Of each tensor, by name.
        read: Gives the bytes of a tensor, in pieces.
    """

    model: ModelConfig
    dtypes: Mapping[str, str]
    read: Callable[[str], Iterator[memoryview]]

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """A tensor in memory, in a wider dtype."""
        flat, end = np.empty(math.prod(shape), dtype), 0
        for piece in self.read(name):
            values = np.frombuffer(piece, numpy_dtype(self.dtypes[name]))
            start, end = end, end + values.size
            flat[start:end] = values
        assert end == flat.size, f"{name} has {end} values, not {flat.size}"
        return flat.reshape(shape)

    def blocks(self, name: str, shape: tuple[int, ...], multiple: int = 1) -> Iterator[np.ndarray]:
        """A tensor, some rows at a time, each overwritten by the next.

        Args:
            name: Of the tensor.
            shape: Of the tensor.
            multiple: Of which the rows of a block are one.
        """
        kind = numpy_dtype(self.dtypes[name])
        row_bytes = math.prod(shape[1:]) * kind.itemsize
        rows = min(shape[0], max(PIECE_BYTES // (row_bytes * multiple), 1) * multiple)
        buffer, held = memoryview(bytearray(rows * row_bytes)), 0
        for piece in self.read(name):
            while piece:
                part = piece[: len(buffer) - held]
                buffer[held : held + len(part)] = part
                held, piece = held + len(part), piece[len(part) :]
                if held == len(buffer):
                    yield np.frombuffer(buffer, kind).reshape(-1, *shape[1:])
                    held = 0
        if held:
            yield np.frombuffer(buffer[:held], kind).reshape(-1, *shape[1:])

    def rows(
        self, name: str, ids: Int[np.ndarray, "R T"], dtype: Any = np.float32
    ) -> Float[np.ndarray, "R T D"]:
        """Rows of a table, in a wider dtype; of the others a few are in memory at a time."""
        kind, width = numpy_dtype(self.dtypes[name]), self.model.embed_dim
        taken = np.empty((*ids.shape, width), dtype)
        left, first = b"", 0
        for piece in self.read(name):
            left += bytes(piece)
            count = len(left) // (width * kind.itemsize)
            block = np.frombuffer(left, kind, count * width).reshape(count, width)
            here = (ids >= first) & (ids < first + count)
            taken[here] = block[ids[here] - first]
            left, first = left[count * width * kind.itemsize :], first + count
        return taken
