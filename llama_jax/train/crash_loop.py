"""A run that dies after the same update again and again is stopped, and says what it read there.

A launcher that watches sees such a loop by itself; a platform that merely starts processes again,
as systemd and Kubernetes do, would go on for as long as it is told to. What the account of wall
time says of the starts before is enough to know: `train` refuses once, with the exit code that is
not tried again. Whoever starts the run after that has been told, and is let through.
"""

from llama_jax.config import RunConfig
from llama_jax.data.dataset import Dataset
from llama_jax.observe.goodput import NAME, Start, close_start, read_starts
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.train.beginning import Beginning
from llama_jax.train.guards import document_lines
from llama_jax.train.hosts import Hosts

END = "crash loop"


def refuse_crash_loop(
    config: RunConfig, folder: RunDirectory, beginning: Beginning, dataset: Dataset, hosts: Hosts
) -> None:
    """Refuses a start where the ones before it died one after another and none got further.

    To be called by all processes; what the first one reads counts.

    Raises:
        ValueError: If so; names the update, and the documents that come after it.
    """
    most, path = config.guards.max_deaths_at_step, folder.path / NAME
    text = ""
    if folder.primary and most:
        starts = read_starts(path)
        if beginning.step <= (step := died_after(starts, most)):
            text = _explain(config, beginning, dataset, step)
            close_start(path, END)
    text = hosts.gather(END, text, config.guards.other_deadline_seconds)[0]
    if text:
        raise ValueError(f"run_dir={folder.path}: {text}")


def died_after(starts: list[Start], times: int) -> int:
    """The update after which the last starts died, so many in a row; -1 where they did not."""
    last = starts[-times:]
    steps = {start.last_step for start in last}
    looped = len(last) == times and len(steps) == 1 and not any(start.end for start in last)
    return steps.pop() if looped else -1


def _explain(config: RunConfig, beginning: Beginning, dataset: Dataset, step: int) -> str:
    most, last = config.guards.max_deaths_at_step, step + config.log.every_steps
    last = min(last, config.train.num_steps)
    samples = beginning.samples_of(step + 1, config).start, beginning.samples_at(last, config)
    lines = document_lines(dataset.documents_of(samples[0], samples[1] - samples[0]))
    return (
        f"the last {most} starts died after update {step:,}, and none got further "
        f"(guards.max_deaths_at_step={most}). Their logs say of what; once that is put right, "
        f"start again, and this start is let through. Updates {step + 1:,} to {last:,} read:\n"
        + "\n".join(lines)
    )
