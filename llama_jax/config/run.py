"""A whole run: one value that can be saved, compared and run again."""

import dataclasses
from typing import Literal, get_args

from llama_jax.config import checks
from llama_jax.config.build import BuildConfig
from llama_jax.config.data import DataConfig
from llama_jax.config.guards import GuardConfig
from llama_jax.config.model import ModelConfig
from llama_jax.config.optimizer import AdamW, Optimizer, Schedule, WarmupStableDecay
from llama_jax.config.parameterisation import Parameterisation
from llama_jax.config.stream import check_stream
from llama_jax.config.tiles import KernelTiles

COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
Remat = Literal["none", "full", "attention", "qkv", "gate", "dots", "offload", "offload_inputs"]
REMAT_POLICIES = get_args(Remat)
ATTENTION_BACKENDS = ("auto", "xla", "splash", "cudnn")
MATMULS = ("dtype", "int8", "fp8")
CONTEXT_EXCHANGES = ("gather", "all_to_all", "ring")
GRADIENTS = ("scatter", "sum")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ComputeConfig:
    """How the model is computed; no choice here changes what is computed, beyond rounding.

    Attributes:
        dtype: Of activations and matmuls; master weights are always float32. "auto" is bfloat16
            on accelerators and float32 on CPU.
        matmul: Of the blocks' weights: "dtype" is that of `dtype`; "int8" and "fp8" round operands
            to 8 bits, forward and for the gradient of activations. They need the extra `quant`.
        remat: What the backward pass finds saved: "none" recomputes nothing, "full" recomputes
            each block from its input, "attention" saves attention outputs, "qkv" the queries,
            keys and values too, "gate" the MLP's gates instead, "dots" saves matmul outputs,
            "offload" keeps matmul outputs in host memory, "offload_inputs" the blocks' inputs,
            which every other policy keeps on the device: "full" where its memory ends.
        attention: Kernel; "auto" is splash attention on TPU, cuDNN on GPU and XLA on CPU, and on
            GPU where activations are float32, which cuDNN does not take.
        tiles: Of splash attention.
        context: How attention crosses the shards of a row where `mesh.context` splits it: "gather"
            makes keys and values whole on each device, "all_to_all" exchanges rows for heads,
            "ring" passes keys and values from device to device.
        gradients: How devices add up a weight's gradient: "scatter" leaves each its part, "sum" all
            of it first. A sum moves twice the bytes, and can be hidden behind matmuls on TPUs on
            which a scatter cannot (v4, v5e; docs/pod_flags.md).
        loss_chunks: Pieces in which the vocabulary projection is computed; only one piece's
            float32 logits are live at a time.
        stage_rows: Rows that a pipeline stage computes at once, where `mesh.stage` makes any: with
            fewer, stages wait less for one another, and gather their weights more often.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    matmul: Literal["dtype", "int8", "fp8"] = "dtype"
    remat: Remat = "full"
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    tiles: KernelTiles = KernelTiles()  # noqa: RUF009 (frozen)
    context: Literal["gather", "all_to_all", "ring"] = "gather"
    gradients: Literal["scatter", "sum"] = "scatter"
    loss_chunks: int = 8
    stage_rows: int = 1

    def __post_init__(self) -> None:
        checks.one_of("compute", COMPUTE_DTYPES, dtype=self.dtype)
        checks.one_of("compute", MATMULS, matmul=self.matmul)
        checks.one_of("compute", REMAT_POLICIES, remat=self.remat)
        checks.one_of("compute", ATTENTION_BACKENDS, attention=self.attention)
        checks.one_of("compute", CONTEXT_EXCHANGES, context=self.context)
        checks.one_of("compute", GRADIENTS, gradients=self.gradients)
        if self.context == "ring" and self.attention not in ("auto", "xla"):
            raise ValueError(
                f"compute.attention={self.attention!r} is not used with compute.context='ring', "
                "whose pieces are mixed without a kernel; use compute.attention='auto', or "
                "compute.context='all_to_all'."
            )
        checks.positive("compute", loss_chunks=self.loss_chunks, stage_rows=self.stage_rows)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeshConfig:
    """Devices along each mesh axis; one axis may be -1, for all the devices that are left.

    Attributes:
        replica: Copies of the model, across slices.
        stage: Pipeline stages, each with its share of the layers; they split the batch too.
        fsdp: Devices that split parameters, optimizer state and batch.
        fsdp_line: More devices that split as `fsdp` does, along a line of the torus. The compiler
            has a reduce-scatter for a plane or a line of chips and none for a torus of three
            dimensions; there it sums gradients whole instead.
        context: Devices that split each row.
        tensor: Devices that split heads, MLP width and vocabulary.
    """

    replica: int = 1
    stage: int = 1
    fsdp: int = -1
    fsdp_line: int = 1
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            if size != -1 and size < 1:
                raise ValueError(f"mesh.{name}={size} must be positive, or -1 for the rest.")
        if (rest := [name for name, size in sizes.items() if size == -1])[1:]:
            raise ValueError(
                f"mesh.{rest[0]} and mesh.{rest[1]} are both -1; only one axis can take the rest."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How long, how wide, and when to give up.

    Attributes:
        num_steps: Optimizer updates of the whole run.
        batch_size: Rows of `data.seq_len` tokens per update, over all devices.
        batch_ramp: Pairs of step and rows: from that update on, counted from 0, a batch has so
            many rows. Empty leaves `batch_size` as it is.
        accumulation_steps: Pieces in which a batch is computed, one after another; the update is
            that of the whole batch.
        seed: Of the initial parameters.
        z_loss: Weight of the squared log-normaliser (PaLM, arXiv:2204.02311, section 5);
            0 leaves it out.
        max_skipped_updates: The run stops after this many non-finite updates in a row.
    """

    num_steps: int
    batch_size: int
    batch_ramp: tuple[tuple[int, int], ...] = ()
    accumulation_steps: int = 1
    seed: int = 0
    z_loss: float = 0.0
    max_skipped_updates: int = 10

    def __post_init__(self) -> None:
        checks.positive(
            "train",
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            accumulation_steps=self.accumulation_steps,
            max_skipped_updates=self.max_skipped_updates,
        )
        checks.not_negative("train", seed=self.seed, z_loss=self.z_loss)
        before = 0
        for step, rows in self.batch_ramp:
            if step <= before or rows < 1:
                raise ValueError(
                    f"train.batch_ramp has {rows} rows from step {step} on; give pairs of step and "
                    "rows, both positive, with each step after the one before it."
                )
            before = step
        for rows in (self.batch_size, *(rows for _, rows in self.batch_ramp)):
            if rows % self.accumulation_steps:
                raise ValueError(
                    f"train.accumulation_steps={self.accumulation_steps} must divide "
                    f"{self.field_of(rows)}: pieces of a batch have the same size."
                )

    @property
    def stages(self) -> tuple[tuple[range, int], ...]:
        """Updates of the run, counted from 0, by the rows of their batches."""
        changes = ((0, self.batch_size), *self.batch_ramp)
        ends = (*(step for step, _ in self.batch_ramp), self.num_steps)
        spans = (
            (range(start, min(end, self.num_steps)), rows)
            for (start, rows), end in zip(changes, ends, strict=True)
        )
        return tuple((steps, rows) for steps, rows in spans if steps)

    def batch_size_at(self, step: int) -> int:
        """Rows of the update that follows `step` updates."""
        return next(rows for steps, rows in self.stages if step in steps)

    def rows_before(self, step: int) -> int:
        """Rows that the first `step` updates consume."""
        return sum(rows * len(steps[: max(step - steps.start, 0)]) for steps, rows in self.stages)

    def field_of(self, rows: int) -> str:
        """The field that gives a batch so many rows, and its value, for messages."""
        return f"train.batch_{'size' if rows == self.batch_size else 'ramp'}={rows}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When to save, and what to keep.

    Attributes:
        every_steps: Updates between two checkpoints; the last step is always saved.
        keep_last: Latest checkpoints that are kept.
        keep_every_steps: Checkpoints at multiples of this are kept for good; 0 keeps none.
    """

    every_steps: int = 1000
    keep_last: int = 2
    keep_every_steps: int = 0

    def __post_init__(self) -> None:
        checks.positive("checkpoint", every_steps=self.every_steps, keep_last=self.keep_last)
        checks.not_negative("checkpoint", keep_every_steps=self.keep_every_steps)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How often held-out documents are scored.

    Attributes:
        every_steps: Updates between two evaluations; 0 evaluates at the end alone.
        num_batches: Batches of `train.batch_size` rows, whatever the ramp, scored a source; 0
            scores all there are.
    """

    every_steps: int = 0
    num_batches: int = 8

    def __post_init__(self) -> None:
        checks.not_negative("evaluate", every_steps=self.every_steps, num_batches=self.num_batches)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """Where metrics go besides the console and `metrics.jsonl`.

    Attributes:
        every_steps: Updates between two lines of metrics.
        tensorboard: Whether to write TensorBoard event files.
        wandb_project: Weights & Biases project; empty writes none.
    """

    every_steps: int = 10
    tensorboard: bool = True
    wandb_project: str = ""

    def __post_init__(self) -> None:
        checks.positive("log", every_steps=self.every_steps)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All that decides a run's result, and all that it needs to be run again.

    Attributes:
        name: Of the recipe, and of the run's folder unless another is given.
        model: Shape of the decoder.
        data: Tokens, mixture and rows.
        train: Steps, batch, seed and limits.
        optimizer: Update rule and its constants.
        schedule: Learning rate over the steps.
        compute: Precision, remat and kernels.
        mesh: Devices along each axis.
        checkpoint: When to save, and what to keep.
        evaluate: How often to score held-out documents.
        log: Where metrics go.
        guards: What is done about hangs, spikes and silent corruption.
        stream: Data recipe whose raw documents are read, in place of shards in `data.directory`.
        parameterisation: How initial weights and learning rates follow the sizes of the model;
            without one they do not.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    optimizer: Optimizer
    schedule: Schedule
    compute: ComputeConfig = ComputeConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    log: LogConfig = LogConfig()
    guards: GuardConfig = GuardConfig()  # noqa: RUF009 (frozen)
    stream: BuildConfig | None = None
    parameterisation: Parameterisation | None = None

    def __post_init__(self) -> None:
        if self.data.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} must not exceed "
                f"model.max_seq_len={self.model.max_seq_len}: rows would leave the model's context."
            )
        if self.data.seq_len % self.compute.loss_chunks:
            raise ValueError(
                f"compute.loss_chunks={self.compute.loss_chunks} must divide "
                f"data.seq_len={self.data.seq_len}: chunks of a row have the same size."
            )
        if self.stream is not None:
            check_stream(self.stream)
        if self.parameterisation is not None and not isinstance(self.optimizer, AdamW):
            raise ValueError(
                f"parameterisation={type(self.parameterisation).__name__} has rules for "
                f"optimizer=AdamW alone, not for {type(self.optimizer).__name__}; leave one of the "
                "two out."
            )
        spent = self.schedule.warmup_steps
        if isinstance(self.schedule, WarmupStableDecay):
            spent += self.schedule.decay_steps
        if spent > self.train.num_steps:
            raise ValueError(
                f"schedule needs {spent} steps (warm-up and cooldown), more than "
                f"train.num_steps={self.train.num_steps}; shorten the warm-up or train longer."
            )

    def tokens_before(self, step: int) -> int:
        """Tokens of the first `step` updates, padding included."""
        return self.train.rows_before(step) * self.data.seq_len
