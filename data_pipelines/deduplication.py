"""The steps by which duplicates are found and removed: of all sources at once, bucket by bucket."""

from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path

from llama_jax.config import Deduplication, MinHash, ParagraphDedup

from . import plan
from .engine import Done, Function, Task
from .stages import deduplicate as stage

# By source: tasks that are done, such as those that wrote its buckets, in order of hashes.
Finished = dict[str, list[Done]]
# A step's name and its tasks by source -> the tasks done.
Run = Callable[[str, dict[str, list[Task]]], Finished]
# What a task calls, with which config, on which folders.
Call = tuple[Function, object, tuple[Path, ...]]
_MAX_PARTS = 64


def remove_near_duplicates(
    wanted: Mapping[str, MinHash], buckets: Mapping[str, list[Done]], run: Run
) -> Finished:
    """Buckets of some sources without near duplicates.

    Args:
        wanted: What counts as one, by source.
        buckets: Tasks that wrote documents, by source.
        run: Runs the tasks of a step.
    """

    def step(label: str, calls: Callable[[str, MinHash], list[Call]]) -> Finished:
        return _step(
            label, {name: calls(name, rule) for name, rule in wanted.items()}, buckets, run
        )

    signed = step(
        "sign", lambda name, rule: [(stage.sign, rule, (each,)) for each in _folders(buckets[name])]
    )
    matched = step(
        "match",
        lambda name, rule: [
            (stage.match, stage.Match(minhash=rule, band=band), _folders(signed[name]))
            for band in range(rule.bands)
        ],
    )
    clustered = step(
        "cluster",
        lambda name, _: [_join(stage.cluster, signed[name], (*signed[name], *matched[name]))],
    )
    return step("deduplicate", lambda name, rule: _removals(rule, buckets[name], clustered[name]))


def remove_repeated_paragraphs(
    wanted: Mapping[str, ParagraphDedup], buckets: Mapping[str, list[Done]], run: Run
) -> Finished:
    """Buckets of some sources without repeated paragraphs; see `remove_near_duplicates`."""

    def step(label: str, calls: Callable[[str, ParagraphDedup], list[Call]]) -> Finished:
        return _step(
            label, {name: calls(name, rule) for name, rule in wanted.items()}, buckets, run
        )

    hashed = step(
        "hash",
        lambda name, rule: [
            (stage.hash_paragraphs, rule, (each,)) for each in _folders(buckets[name])
        ],
    )
    found = step(
        "repeats",
        lambda name, _: [
            (stage.find_repeats, part, _folders(hashed[name])) for part in _parts(hashed[name])
        ],
    )
    in_order = step("sort", lambda name, _: [_join(stage.sort_repeats, hashed[name], found[name])])
    return step("cut", lambda name, rule: _removals(rule, buckets[name], in_order[name]))


def _step(
    label: str, calls: Mapping[str, list[Call]], buckets: Mapping[str, list[Done]], run: Run
) -> Finished:
    return run(
        label,
        {
            name: [
                Task(
                    name=f"{label}/{name}/{number:05d}",
                    function=function,
                    config=config,
                    inputs=inputs,
                    size_bytes=plan.text_bytes(buckets[name]) // len(of_source),
                )
                for number, (function, config, inputs) in enumerate(of_source)
            ]
            for name, of_source in calls.items()
        },
    )


def _parts(hashed: list[Done]) -> list[stage.Part]:
    num_parts = min(len(hashed), _MAX_PARTS)
    return [stage.Part(part=part, num_parts=num_parts) for part in range(num_parts)]


def _join(function: Function, buckets: Sized, inputs: Iterable[Done]) -> Call:
    return function, stage.Join(num_buckets=len(buckets)), _folders(inputs)


def _removals(rule: Deduplication, buckets: list[Done], decided: list[Done]) -> list[Call]:
    return [
        (
            stage.remove,
            stage.Remove(bucket=number, rule=rule),
            (*_folders([bucket]), *_folders(decided)),
        )
        for number, bucket in enumerate(buckets)
    ]


def _folders(tasks: Iterable[Done]) -> tuple[Path, ...]:
    return tuple(task.folder for task in tasks)
