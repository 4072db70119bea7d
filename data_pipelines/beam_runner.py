"""Runs tasks through Apache Beam: on Dataflow, Flink or Spark, or here."""

from collections.abc import Sequence
from pathlib import Path

from .engine import Listener, Task, run_task


class BeamRunner:
    """An `Executor` that makes a pipeline of each step.

    What tasks read and write lies in files, which every worker must find under the same path (a
    shared file system); through Beam goes which tasks there are. So the bytes are those of a local
    build, and runners that hold all elements in memory hold little.

    Args:
        options: Beam's own, such as "--runner=FlinkRunner".

    Raises:
        ValueError: If Beam is not installed.
    """

    def __init__(self, options: Sequence[str] = ()):
        try:
            import apache_beam  # noqa: F401 # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(
                "--runner=beam needs Apache Beam: pip install 'llama-jax[beam]'."
            ) from error
        self._options = list(options)

    def __call__(self, tasks: Sequence[tuple[Task, str]], work: Path, listener: Listener) -> None:
        """See `Executor`; tells of tasks when their step is done."""
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )

        if not tasks:
            return
        with beam.Pipeline(options=PipelineOptions(self._options)) as pipeline:
            _ = (
                pipeline
                | "tasks" >> beam.Create([(task, key, str(work)) for task, key in tasks])
                # Or a runner may put them all into one bundle, and so on one worker.
                | "spread" >> beam.Reshuffle()
                | "run" >> beam.MapTuple(_run)
            )
        for task, _ in tasks:
            listener.advanced(task.name, task.size_bytes)
            listener.finished(task.name)


def _run(task: Task, key: str, work: str) -> None:
    run_task(task, key, Path(work), _quiet)


def _quiet(num_bytes: int) -> None:
    """Beam's own pages show how far a job is."""
