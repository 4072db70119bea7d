"""Which tokens a run has fed to its devices, and in which order, as one number.

    order = TokenOrder(config, mesh, hosts, before)  # where this start goes on
    order.add(done, batch)                           # rows that this process fed to an update
    order.total()                                    # of all processes; all of them must ask

It says what was fed, not what the sample counter says that should be. Each row counts with a hash
of its tokens and of its place among all rows that the run fed; hashes are added up. So the number
is the same however rows are divided among processes, and another one where a token is another or
two rows change places.
"""

import hashlib
import zlib

import jax
import numpy as np
from jax.sharding import Mesh

from llama_jax.config import RunConfig
from llama_jax.data.batch import Batch
from llama_jax.sharding import batch_sharding
from llama_jax.train.feed import local_rows
from llama_jax.train.hosts import Hosts

_BYTES = 6  # programs that read JSON numbers as float64 keep it


class TokenOrder:
    """The number of this process, which all processes of the run have a part of.

    Args:
        config: Of the run.
        mesh: All devices.
        hosts: All processes.
        before: What the number was where this start goes on.
    """

    def __init__(self, config: RunConfig, mesh: Mesh, hosts: Hosts, before: int = 0):
        self._config, self._mesh, self._hosts = config, mesh, hosts
        self._sum = 0 if jax.process_index() else before
        self._counted: dict[int, tuple[int, list[int]]] = {}

    def add(self, done: int, batch: Batch) -> None:
        """Counts the rows of an update that this process is to count.

        Args:
            done: Updates made before it.
            batch: Rows of this process, as they come from the loader.
        """
        train = self._config.train
        size = train.batch_size_at(done)
        if size not in self._counted:
            first = local_rows(self._config, self._mesh, size).start
            shape = (size, self._config.data.seq_len)
            self._counted[size] = first, counted_rows(self._mesh, shape)
        first, rows = self._counted[size]
        place = train.rows_before(done)
        inputs = np.asarray(batch.inputs)
        self._sum += sum(row_hash(place + row, inputs[row - first]) for row in rows)

    def total(self) -> int:
        """The number of the run so far, below 2**48."""
        patience = self._config.guards.other_deadline_seconds
        sums = self._hosts.gather("token order", self._sum, patience).values()
        return sum(sums) % (1 << 8 * _BYTES)


def counted_rows(mesh: Mesh, shape: tuple[int, int]) -> list[int]:
    """Rows of a global batch that this process counts; of several that hold a row, the first."""
    holder = np.full(shape[0], jax.process_count())
    for device, (rows, _) in batch_sharding(mesh).devices_indices_map(shape).items():
        holder[rows] = np.minimum(holder[rows], device.process_index)
    return np.flatnonzero(holder == jax.process_index()).tolist()


def row_hash(place: int, tokens: np.ndarray) -> int:
    """Of a row and its place; the checksum is fast, and the hash of it is no sum of parts."""
    described = f"{place} {zlib.crc32(tokens.tobytes())}".encode()
    return int.from_bytes(hashlib.blake2b(described, digest_size=_BYTES).digest(), "little")
