"""From a recipe to a folder of token shards: complete, or not there yet."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from llama_jax.checksum import file_sha256
from llama_jax.config import BuildConfig, MinHash, ParagraphDedup, Source, TokenizerFile
from llama_jax.data.tokenizer import load_tokenizer

from . import output, plan
from .assemble import Made, MadeSource, assemble
from .beam_runner import BeamRunner
from .deduplication import remove_near_duplicates, remove_repeated_paragraphs
from .document import Dropped, Fingerprinted
from .engine import Done, Engine, Executor, Listener, Task, in_this_process
from .listeners import BuildListener, Reporter
from .local_pool import LocalPool
from .sources import open_source
from .stages.collect import Collect, collect
from .stages.filters import open_filters
from .stages.gather import Gather, gather
from .stages.limit import Limit, limit
from .stages.make_tokenizer import MakeTokenizer, make_tokenizer
from .stages.tokenize import Tokenize, tokenize
from .tables import DOCUMENTS, read_documents

_Split = Literal["train", "heldout"]
_SPLITS: tuple[_Split, ...] = ("train", "heldout")


@contextlib.contextmanager
def executor(
    num_workers: int, runner: str = "local", beam_options: Sequence[str] = ()
) -> Iterator[Executor]:
    """What runs tasks: so many processes, of which one is this one; or Beam.

    Raises:
        ValueError: If Beam is asked for and not installed.
    """
    if runner == "beam":
        yield BeamRunner(beam_options)
    elif num_workers == 1:
        yield in_this_process
    else:
        with LocalPool(num_workers) as pool:
            yield pool


def build(
    config: BuildConfig,
    out: Path,
    reporter: Reporter,
    *,
    run: Executor = in_this_process,
    work: Path | None = None,
    max_bad_records: int | None = None,
) -> tuple[dict[str, Any], bool]:
    """Builds a dataset; one that is finished already is left as it is.

    Tasks write below `work`, each a folder that is whole or absent, so that a build killed at any
    moment goes on where it was. At the end all is put into place in `out`, `build.json` last.

    Args:
        config: The recipe.
        out: Where the dataset goes.
        reporter: Is told how far it is.
        run: Runs tasks; whatever it is, the bytes are the same.
        work: Kept, so that a build of a changed recipe does again what the change concerns.
            Without one it is `out/.build`, deleted at the end.
        max_bad_records: So many damaged files and records are left out; one more ends the build.

    Returns:
        The contents of `build.json`, and whether they were there already.

    Raises:
        ValueError: If `out` holds another dataset, a source is empty, a task failed, too much is
            damaged, another build is at work, or `out` or `work` is among the inputs.
    """
    for option, folder in {"--out": out, "--work": work or out}.items():
        output.refuse_where_inputs_are(config, option, folder)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(output.lock(out, "--out"))
        if (finished := output.finished(config, out)) is not None:
            return finished, True
        output.refuse_foreign(out)
        if work is not None:
            work.mkdir(parents=True, exist_ok=True)
            stack.enter_context(output.lock(work, "--work"))
        ours = (out / output.WORK).absolute()
        engine = Engine((work or ours / "tasks").absolute(), run)
        made = _Build(config, engine, reporter, max_bad_records).made()
        summary = assemble(config, made, ours / "staging", out)
        shutil.rmtree(ours)
        return summary, False


def sample(source: Source, max_bytes: int, work: Path, dropped: Dropped) -> Iterator[str]:
    """Texts of a source by hash, each once, until they hold so many bytes; see `build`."""
    engine = Engine(work, in_this_process)
    collected = engine.run(_collect(source), Listener())
    gathered = engine.run(_gather(source.name, collected), Listener())
    for done in (*collected, *gathered):
        dropped.merge(done.result["dropped"])
    taken = 0
    for done in gathered:
        for hashed in read_documents(done.folder / DOCUMENTS):
            taken += len(hashed.document.text.encode())
            if taken > max_bytes:
                return
            yield hashed.document.text


class _Build:
    """The steps of one build, one after the other."""

    def __init__(
        self, config: BuildConfig, engine: Engine, reporter: Reporter, max_bad_records: int | None
    ):
        self._config, self._engine = config, engine
        self._listener = BuildListener(reporter, engine, max_bad_records)
        self._sources = {source.name: MadeSource() for source in config.sources}

    def made(self) -> Made:
        """Runs every step."""
        if isinstance(self._config.tokenizer, TokenizerFile):
            # It is wanted last: what is wrong with it must not be found hours later.
            load_tokenizer(Path(self._config.tokenizer.path))
        collected = self._run("collect", {s.name: _collect(s) for s in self._config.sources})
        documents = self._run("gather", {n: list(_gather(n, c)) for n, c in collected.items()})
        for name, buckets in documents.items():
            if not plan.text_bytes(buckets):
                raise ValueError(_empty(name, self._sources[name].account))
        for nth in range(max(len(source.dedup) for source in self._config.sources)):
            rules = {s.name: s.dedup[nth] for s in self._config.sources if nth < len(s.dedup)}
            near = {name: rule for name, rule in rules.items() if isinstance(rule, MinHash)}
            other = {n: rule for n, rule in rules.items() if isinstance(rule, ParagraphDedup)}
            documents |= remove_near_duplicates(near, documents, self._run)
            documents |= remove_repeated_paragraphs(other, documents, self._run)
        documents |= self._run("limit", self._limits(documents))
        tokenizer = self._run("tokenizer", {"": [self._tokenizer(documents)]})[""][0]
        tokenized = self._run(
            "tokenize",
            {
                source.name: [
                    task
                    for split in _SPLITS
                    for task in self._tokenize(source, split, documents, tokenizer)
                ]
                for source in self._config.sources
            },
        )
        for name, source in self._sources.items():
            source.documents = documents[name]
            source.splits = {split: [] for split in _SPLITS}
            for task in tokenized[name]:
                source.splits[task.folder.parent.name].append(task)
        return Made(
            tokenizer=tokenizer,
            sources=self._sources,
            worker_deaths=self._listener.worker_deaths,
        )

    def _run(self, step: str, tasks: dict[str, list[Task]]) -> dict[str, list[Done]]:
        """Runs a step of all sources at once; their accounts grow by what it left out."""
        self._listener.begin_step(step, tasks)
        every = [task for of_source in tasks.values() for task in of_source]
        done = iter(self._engine.run(every, self._listener))
        results = {name: [next(done) for _ in of_source] for name, of_source in tasks.items()}
        for name, finished in results.items():
            if name in self._sources:
                self._sources[name].take_account(step, finished)
        return results

    def _limits(self, documents: dict[str, list[Done]]) -> dict[str, list[Task]]:
        """Tasks for the sources of which there is more than is wanted."""
        tasks = {}
        for source in self._config.sources:
            buckets = documents[source.name]
            if source.max_bytes and plan.text_bytes(buckets) > source.max_bytes:
                sizes = [plan.text_bytes([bucket]) for bucket in buckets]
                tasks[source.name] = [
                    Task(
                        name=f"limit/{source.name}/{number:05d}",
                        function=limit,
                        config=Limit(max_bytes=most),
                        inputs=(bucket.folder,),
                        size_bytes=size,
                    )
                    for number, (bucket, size, most) in enumerate(
                        zip(buckets, sizes, plan.within(sizes, source.max_bytes), strict=True)
                    )
                ]
        return tasks

    def _tokenizer(self, documents: dict[str, list[Done]]) -> Task:
        """Made of training documents by hash, from each source as it is large."""
        wanted = self._config.tokenizer
        if isinstance(wanted, TokenizerFile):
            return Task(
                name="tokenizer",
                function=make_tokenizer,
                config=MakeTokenizer(tokenizer=wanted),
                made_from=(file_sha256(Path(wanted.path)),) if Path(wanted.path).is_file() else (),
            )
        share = min(wanted.sample_bytes / sum(map(plan.text_bytes, documents.values())), 1.0)
        chosen: list[tuple[Path, int]] = []
        for buckets in documents.values():
            sizes = [plan.text_bytes([bucket]) for bucket in buckets]
            limits = plan.within(sizes, int(sum(sizes) * share))
            pairs = zip(buckets, limits, strict=True)
            chosen += [(bucket.folder, most) for bucket, most in pairs if most]
        folders, limits = zip(*chosen, strict=True)
        return Task(
            name="tokenizer",
            function=make_tokenizer,
            config=MakeTokenizer(
                tokenizer=wanted,
                max_bytes=limits,
                held_out_fraction=self._config.held_out_fraction,
            ),
            inputs=folders,
            size_bytes=sum(limits),
        )

    def _tokenize(
        self,
        source: Source,
        split: _Split,
        documents: dict[str, list[Done]],
        tokenizer: Done,
    ) -> Iterator[Task]:
        buckets = [bucket.folder for bucket in documents[source.name]]
        fraction = self._config.held_out_fraction
        share = fraction if split == "heldout" else 1.0
        size = plan.text_bytes(documents[source.name]) / len(buckets)
        for number, group in enumerate(plan.groups(buckets, share=share)):
            yield Task(
                name=f"tokenize/{source.name}/{split}/{number:05d}",
                function=tokenize,
                config=Tokenize(
                    source=source.name,
                    split=split,
                    held_out_fraction=fraction,
                    shard_tokens=self._config.shard_tokens,
                ),
                inputs=(tokenizer.folder, *group),
                code=("llama_jax.data.sentencepiece", "llama_jax.data.tiktoken"),
                size_bytes=int(
                    size * len(group) * (fraction if split == "heldout" else 1 - fraction)
                ),
            )


def _collect(source: Source) -> list[Task]:
    opened, filters = open_source(source), open_filters(source.filters)
    within = open_filters(getattr(source, "file_filters", ()))
    files = list(opened.files())
    buckets = plan.num_fine_buckets(sum(file.expected_text_bytes() for file in files))
    # Of a file with many pieces once: behind a URL each is a request.
    made_from = {file.url: plan.fingerprint(file) for file in files}
    # Lists of evaluation items, say: what a filter reads decides its results.
    filters_made_from = [
        each.fingerprint() for each in (*filters, *within) if isinstance(each, Fingerprinted)
    ]
    return [
        Task(
            name=f"collect/{source.name}/{number:05d}",
            function=collect,
            config=Collect(source=source, files=part, num_buckets=buckets),
            made_from=(*(made_from[file.url] for file in part), *filters_made_from),
            code=tuple(type(each).__module__ for each in (opened, *filters, *within)),
            size_bytes=sum(file.num_bytes for file in part),
        )
        for number, part in enumerate(plan.parts(opened, files))
    ]


def _gather(name: str, collected: list[Done]) -> Iterator[Task]:
    # How much text there is was not known before.
    size = plan.text_bytes(collected)
    buckets = plan.num_buckets(size)
    for number, (first, stop) in enumerate(
        plan.ranges(collected[0].result["num_buckets"], buckets)
    ):
        yield Task(
            name=f"gather/{name}/{number:05d}",
            function=gather,
            config=Gather(first=first, stop=stop),
            inputs=tuple(done.folder for done in collected),
            size_bytes=size // buckets,
        )


def _empty(name: str, dropped: Dropped) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.counts.most_common())
    return (
        f"sources.{name} is empty: no document is left for training"
        + (f" (left out: {reasons})." if reasons else ".")
        + " Give it more text, or lower build.held_out_fraction."
    )
