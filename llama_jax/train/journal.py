"""All that a run says of itself: the plan before, a line at intervals, scores and the end."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from llama_jax.checkpoint import forecast
from llama_jax.config import RunConfig
from llama_jax.data.dataset import Dataset
from llama_jax.flops import count_params, train_flops_per_token
from llama_jax.model import resolve_dtype
from llama_jax.observe import incidents
from llama_jax.observe.goodput import GoodputLog
from llama_jax.observe.progress import Progress, describe
from llama_jax.observe.run_directory import RunDirectory
from llama_jax.observe.throughput import ThroughputMeter, count_chips, find_peak
from llama_jax.observe.writers import MetricWriter, read_metrics
from llama_jax.train.beginning import Beginning
from llama_jax.train.evaluate import Score, held_out_metrics, total
from llama_jax.train.hosts import Pace


class Journal:
    """Tells people and metric writers how a run goes; only the first process tells people.

    Attributes:
        loss_nats_per_token: Of the last report; NaN before the first.

    Args:
        config: Of the run.
        dataset: What it reads.
        beginning: Where it began.
        mesh: Devices that train.
        folder: Of the run.
        progress: For people.
        writer: For the numbers.
        goodput: The account of the run's wall time.
        pace: Of this process and the others.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        beginning: Beginning,
        mesh: Mesh,
        folder: RunDirectory,
        progress: Progress,
        writer: MetricWriter,
        goodput: GoodputLog,
        pace: Pace,
    ):
        self.loss_nats_per_token = float("nan")
        self._config, self._dataset, self._beginning = config, dataset, beginning
        self._mesh, self._folder = mesh, folder
        self._progress, self._writer = progress, writer
        self._goodput, self._pace = goodput, pace
        self._slow_host: int | None = None
        self._meter = ThroughputMeter(
            config.model,
            config.data.seq_len,
            find_peak(jax.local_devices()[0], resolve_dtype(config.compute)),
            num_chips=count_chips(list(mesh.devices.flat)),
        )

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._progress.say(text)

    def incident(self, kind: str, step: int, text: str) -> None:
        """Prints a line that nobody overlooks, and keeps it for the report."""
        self.say(f"{kind.upper()} at step {step:,}: {text}")
        if self._folder.primary:
            incidents.note(self._folder.path, kind, step, text)

    def announce(self, abstract_state: Any, changed: list[str], scored: Collection[str]) -> None:
        """Prints the plan: what will be trained, on what, how far, and what it will take."""
        for line in plan_lines(self._config, self._dataset, self._beginning):
            self.say(line)
        sizes = " x ".join(f"{axis} {size}" for axis, size in self._mesh.shape.items() if size > 1)
        devices = f"{self._mesh.size} {jax.devices()[0].device_kind} devices"
        dtype = resolve_dtype(self._config.compute).name
        self.say(f"mesh: {devices}{f' as {sizes}' if sizes else ''}")
        self.say(f"compute: {dtype} over float32 masters; MFU against {self._meter.peak} a chip")
        num_steps = self._config.train.num_steps
        plan = forecast(abstract_state, self._config.checkpoint, num_steps=num_steps)
        self.say(f"checkpoints: {plan}")
        for source in self._dataset.sources:
            if source not in scored:
                self.say(f"held out: no document of {source}, which is not scored")
        for line in changed:
            self.say(f"changed since the last start: {line}")

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._progress.advance(step)

    def report(self, step: int, metrics: dict[str, float], updates: int, seconds: float) -> None:
        """Shows and writes the metrics of an interval that ends with update `step`."""
        self.loss_nats_per_token = metrics["loss_nats_per_token"]
        tokens = self._beginning.tokens_at(step, self._config)
        before = self._beginning.tokens_at(step - updates, self._config)
        throughput = self._meter(tokens - before, seconds)
        status = describe(self.loss_nats_per_token, throughput)
        if skipped := int(metrics["skipped_updates"]):
            status += f" · {skipped} updates skipped"
        self._progress.report(step, status)
        samples = self._beginning.samples_at(step, self._config)
        seen = {"samples_seen": samples, "tokens_seen": tokens}
        host, slow = self._pace.look(step, updates, seconds)
        pace = {"step_seconds": host.step_seconds, "data_seconds": host.data_seconds}
        if slow:
            pace["slow_host"] = slow.index
            if slow.index != self._slow_host:
                self.incident("slow host", step, slow.why)
        self._slow_host = slow.index if slow else None
        epochs = {f"epochs/{name}": e for name, e in self._dataset.epochs(samples).items()}
        wall_time = self._goodput.total().metrics()
        speed = pace | throughput.metrics()
        self._writer.write(step, metrics | seen | speed | epochs | wall_time)
        self._goodput.note(step)

    def keep_order(self, step: int, token_order: int) -> None:
        """Writes which tokens the run has read by now, and in which order; see `token_order.py`."""
        self._writer.write(step, {"token_order": token_order})

    def has_scores(self, step: int) -> bool:
        """Whether held-out scores of `step` are on file, of an earlier start perhaps."""
        records = read_metrics(self._folder.metrics)
        return any(r["step"] == step and "heldout/bits_per_byte" in r for r in records)

    def score(self, step: int, scores: Mapping[str, Score]) -> None:
        """Shows and writes held-out scores."""
        self._goodput.note(step)
        if not scores:
            return
        self._writer.write(step, held_out_metrics(scores))
        self.say(f"held out after step {step}: {describe_scores(scores)}")


def describe_scores(scores: Mapping[str, Score]) -> str:
    """Scores in one line: all sources, then each where there are several."""
    named = {"": total(scores)} | (dict(scores) if len(scores) > 1 else {})
    return "; ".join(f"{name}: {score}" if name else str(score) for name, score in named.items())


def plan_lines(config: RunConfig, dataset: Dataset, beginning: Beginning) -> list[str]:
    """What a run will train, on what, and how far; one fact a line."""
    params = count_params(config.model)
    tokens = config.tokens_before(config.train.num_steps)
    causal = train_flops_per_token(config.model, config.data.seq_len, "causal")
    full = train_flops_per_token(config.model, config.data.seq_len, "full")
    epochs = dataset.epochs(beginning.samples_at(config.train.num_steps, config))
    sources = ", ".join(
        f"{name} {weight:.1%}"
        + (f" ({epochs[name]:.2f} epochs at the end)" if name in epochs else ", streamed")
        for name, weight in zip(dataset.sources, dataset.weights, strict=True)
    )
    size = f"{params.total:,} parameters, {params.non_embedding:,} without embedding and output"
    (_, first), *later = config.train.stages
    grown = "".join(f", then {rows} from step {steps.start:,}" for steps, rows in later)
    batch = f"{first} rows{grown}, of {config.data.seq_len} tokens"
    lines = [
        f"{config.name}: {size}",
        f"train: {tokens:,} tokens in {config.train.num_steps:,} steps of {batch}",
        f"FLOPs a token: {causal:.4g} with causal attention, {full:.4g} with full",
        f"FLOPs in all: {causal * tokens:.4g} with causal attention, {full * tokens:.4g} with full",
        f"data: {sources}",
    ]
    if config.stream is not None:
        lines.append(
            f"stream: {config.stream.name}, filtered and tokenised as it is read; documents that "
            "are there twice stay"
        )
    lines += [
        f"DAMAGED: the checkpoint of step {step:,} ({problems or 'another process found it'}) is "
        f"kept as {step}.damaged; its updates are made again"
        for step, problems in beginning.damaged
    ]
    lines += [f"TAINTED: {taint}; later checkpoints are kept aside" for taint in beginning.tainted]
    if beginning.resumed:
        lines.append(f"resumed at step {beginning.step:,}, sample {beginning.samples:,}")
    elif beginning.origin:
        where = f"{beginning.origin.run_dir} at step {beginning.origin.step:,}"
        anew = "; data are read from their beginning" if beginning.origin.data_from_start else ""
        lines.append(f"branched off {where}, sample {beginning.samples:,}{anew}")
    return lines
