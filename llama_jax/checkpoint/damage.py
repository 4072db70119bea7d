"""Checkpoints that are not as they were saved: how they are found, and where they are put."""

from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from llama_jax.checkpoint.manifest import CheckpointError
from llama_jax.checkpoint.shelf import Shelf, open_shelf
from llama_jax.remote.objects import Url


def find_problems(shelf: Shelf, step: int, *, deep: bool, share: bool = False) -> list[str]:
    """What is wrong with a checkpoint's files; empty where nothing is.

    Args:
        shelf: Where it is.
        step: Of the checkpoint.
        deep: Whether to read every byte and compare checksums.
        share: Whether processes divide the work; each then knows of its own part alone.
    """
    part, parts = (jax.process_index(), jax.process_count()) if share else (0, 1)
    try:
        manifest = shelf.manifest(step)
        return shelf.damage(step, manifest, deep=deep, part=part, parts=parts)
    except CheckpointError as error:
        return [str(error)]


def find_newest_good(
    directory: Path | Url, *, at_most: int | None = None
) -> tuple[int | None, dict[int, list[str]]]:
    """Step of the newest checkpoint of which every byte is good, and what is wrong with newer ones.

    Processes share the work, and all of them get the same steps; what is wrong with one, each
    knows as far as it found it itself.

    Args:
        directory: Of a run's checkpoints.
        at_most: Last step to look at.
    """
    damaged: dict[int, list[str]] = {}
    shelf = open_shelf(directory)
    for step in reversed(shelf.saved()):
        if at_most is not None and step > at_most:
            continue
        problems = find_problems(shelf, step, deep=True, share=True)
        if not _any_process(bool(problems)):
            return step, damaged
        damaged[step] = problems
    return None, damaged


def saved_steps(directory: Path | Url) -> list[int]:
    """Steps that are there by name, ascending, complete or damaged."""
    return open_shelf(directory).saved()


def set_aside(directory: Path | Url, step: int, why: str = "damaged") -> None:
    """Gives a checkpoint another name, so that its step can be saved anew and nothing is lost.

    Args:
        directory: Of a run's checkpoints.
        step: Of the one that is not used.
        why: One word, which its name ends with.
    """
    open_shelf(directory).set_aside(step, why)


def _any_process(answer: bool) -> bool:
    """Whether any process says yes; all of them must ask."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.array(answer)).any())
