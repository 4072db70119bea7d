"""What one training step sees."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32


class Batch(NamedTuple):
    """Rows of packed documents.

    Attributes:
        inputs: Token ids; 0 where padded.
        targets: The token after each input; 0 where there is none.
        loss_mask: 1 where the target continues the input's document, else 0.
        positions: Index of each token within its piece of a document in this row, from 0.
        segments: Number of that piece within its row, from 1; 0 is padding.
    """

    inputs: Int32[np.ndarray | jax.Array, "B T"]
    targets: Int32[np.ndarray | jax.Array, "B T"]
    loss_mask: Float32[np.ndarray | jax.Array, "B T"]
    positions: Int32[np.ndarray | jax.Array, "B T"]
    segments: Int32[np.ndarray | jax.Array, "B T"]
