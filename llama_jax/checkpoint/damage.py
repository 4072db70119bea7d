"""Checkpoints that are not as they were saved: how they are found, and where they are put."""

import itertools
import re
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from llama_jax.atomic import flush
from llama_jax.checkpoint import manifest as manifests
from llama_jax.checkpoint.manifest import CheckpointError

STEP = re.compile(r"0|[1-9]\d*")


def find_problems(folder: Path, *, deep: bool, share: bool = False) -> list[str]:
    """What is wrong with a checkpoint's files; empty where nothing is.

    Args:
        folder: The checkpoint.
        deep: Whether to read every byte and compare checksums.
        share: Whether processes divide the work; each then knows of its own part alone.
    """
    part, parts = (jax.process_index(), jax.process_count()) if share else (0, 1)
    try:
        manifest = manifests.read(folder)
        return manifests.find_damage(folder, manifest, deep=deep, part=part, parts=parts)
    except CheckpointError as error:
        return [str(error)]


def find_newest_good(
    directory: Path, *, at_most: int | None = None
) -> tuple[int | None, dict[int, list[str]]]:
    """Step of the newest checkpoint of which every byte is good, and what is wrong with newer ones.

    Processes share the work, and all of them get the same steps; what is wrong with one, each
    knows as far as it found it itself.

    Args:
        directory: Of a run's checkpoints.
        at_most: Last step to look at.
    """
    damaged: dict[int, list[str]] = {}
    for step in reversed(saved_steps(directory)):
        if at_most is not None and step > at_most:
            continue
        problems = find_problems(directory / str(step), deep=True, share=True)
        if not _any_process(bool(problems)):
            return step, damaged
        damaged[step] = problems
    return None, damaged


def saved_steps(directory: Path) -> list[int]:
    """Steps that have a folder, ascending.

    One without a manifest is a damaged checkpoint: a save gets its name at the end.
    """
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if STEP.fullmatch(name))


def set_aside(directory: Path, step: int, why: str = "damaged") -> None:
    """Renames a checkpoint, so that its step can be saved anew and nothing is lost.

    Args:
        directory: Of a run's checkpoints.
        step: Of the one that is not used.
        why: One word, which its name ends with.
    """
    suffixes = itertools.chain([""], (f".{n}" for n in itertools.count(2)))
    names = (directory / f"{step}.{why}{suffix}" for suffix in suffixes)
    (directory / str(step)).rename(next(path for path in names if not path.exists()))
    flush(directory)


def _any_process(answer: bool) -> bool:
    """Whether any process says yes; all of them must ask."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.array(answer)).any())
