"""Finds the data pipelines: inside an installed wheel, or beside the package in a checkout."""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from llama_jax.config import BuildConfig


def load_pipelines(module: str) -> ModuleType:
    """Imports `module` of the data pipelines, "runner" for instance."""
    in_wheel = importlib.util.find_spec("llama_jax._data_pipelines") is not None
    package = "llama_jax._data_pipelines" if in_wheel else "data_pipelines"
    return importlib.import_module(f"{package}.{module}")


def open_raw(config: BuildConfig) -> Sequence[Any]:
    """The raw documents of a data recipe's sources, for a run that streams them.

    Other processes read them, for each CPU one but for that of this process.
    """
    if num_others := len(os.sched_getaffinity(0)) - 1:
        return load_pipelines("read_ahead").open_ahead(config, num_others)
    return load_pipelines("stream").open_raw(config)
