"""The pass over a corpus that finds the web sites with much personal data."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.config import BuildConfig, PersonalData, Source

from . import plan
from .document import Dropped, RawFile
from .engine import Engine, Executor, Progress, Task
from .listeners import Reporter, StageListener
from .sources import open_source
from .stages.personal_data import PersonalDataStage
from .stages.sites import SiteCounts

_COUNTS = "sites.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CountSites:
    """What one task reads, and what counts as a find."""

    source: Source
    files: tuple[RawFile, ...]
    finds: PersonalData


def sites_above(
    config: BuildConfig,
    max_rate: float,
    min_documents: int,
    reporter: Reporter,
    *,
    run: Executor,
    work: Path | None = None,
) -> list[str]:
    """Hosts with more finds of personal data a document, over all raw documents of a recipe.

    Args:
        config: Its sources are read; what counts as a find is what their filter `PersonalData`
            says, or else its defaults.
        max_rate: The highest mean of finds a document that a host may have.
        min_documents: Hosts with fewer stay whatever they have.
        reporter: Is told how far the pass is.
        run: Runs the tasks.
        work: Where tasks write; kept, so that a pass that was killed goes on.

    Raises:
        ValueError: If a source cannot be read, or has no addresses.
    """
    counts = SiteCounts()
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listener, tasks = StageListener(reporter), list[Task]()
        for source in config.sources:
            of_source = list(_tasks(source))
            listener.begin(f"sites {source.name}", of_source)
            tasks += of_source
        for done in Engine(folder.absolute(), run).run(tasks, listener):
            counts.update(SiteCounts.from_json(json.loads((done.folder / _COUNTS).read_text())))
    if not counts.documents:
        names = ", ".join(source.name for source in config.sources)
        raise ValueError(
            f"sources {names}: no document has an address (url), so none is of a site; give "
            "sources of web pages."
        )
    return counts.above(max_rate, min_documents=min_documents)


def count_sites(
    config: CountSites, inputs: tuple[Path, ...], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Writes documents and finds of each host in some raw files."""
    source, stage, counts = (
        open_source(config.source),
        PersonalDataStage(config.finds),
        SiteCounts(),
    )
    for file in config.files:
        counts.add(source.read(file, Dropped()), stage.find)
        progress(file.num_bytes)
    (folder / _COUNTS).write_text(json.dumps(counts.to_json()))
    return {}


def _tasks(source: Source) -> Iterator[Task]:
    opened = open_source(source)
    finds = next(
        (each for each in source.filters if isinstance(each, PersonalData)), PersonalData()
    )
    # The list is what this pass makes.
    finds = dataclasses.replace(finds, sites_file="")
    for number, part in enumerate(plan.parts(opened, list(opened.files()))):
        yield Task(
            name=f"sites/{source.name}/{number:05d}",
            function=count_sites,
            config=CountSites(source=source, files=part, finds=finds),
            made_from=tuple(map(plan.fingerprint, part)),
            code=(type(opened).__module__,),
            size_bytes=sum(file.num_bytes for file in part),
        )
