"""Parameters of a small model, and what they become in the Hugging Face layout."""

import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.convert import mapping


@pytest.fixture(scope="session")
def random_params():
    """A function from a model's config to its parameters by path."""

    def make(model: ModelConfig) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {
            path: rng.standard_normal(shape, dtype=np.float32)
            for path, shape in mapping.our_shapes(model).items()
        }

    return make


@pytest.fixture(scope="session")
def exported():
    """A function from a model's config and parameters to Hugging Face's tensors by name."""

    def export(model: ModelConfig, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            tensor.name: mapping.to_theirs(
                tensor,
                params[tensor.pair.ours][tensor.layer if tensor.layer >= 0 else ...],
            )
            for tensor in mapping.tensors_of(model)
        }

    return export
