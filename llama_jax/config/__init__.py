"""What a run is: plain frozen values, with no JAX, no I/O and no behaviour."""

from llama_jax.config.build import (
    ArxivSource,
    BooksSource,
    BuildConfig,
    CommonCrawlSource,
    FilesSource,
    GitHubSource,
    PythonEnvironmentSource,
    Source,
    StackExchangeSource,
    TokenizerFile,
    TokenizerTraining,
    WikipediaSource,
)
from llama_jax.config.code import CodeRules
from llama_jax.config.data import DataConfig
from llama_jax.config.dedup import Deduplication, MinHash, ParagraphDedup
from llama_jax.config.document_filters import (
    Decontamination,
    LanguageFilter,
    PersonalData,
    QualityClassifier,
)
from llama_jax.config.filters import Filter
from llama_jax.config.guards import GuardConfig
from llama_jax.config.ladder import LadderConfig, Rung
from llama_jax.config.model import LinearRope, Llama3Rope, ModelConfig, PlainRope, Rope
from llama_jax.config.optimizer import (
    AdamW,
    Cosine,
    Linear,
    Muon,
    Optimizer,
    Schedule,
    WarmupStableDecay,
)
from llama_jax.config.parameterisation import CompleteP, MuP, Parameterisation
from llama_jax.config.rules import (
    C4Rules,
    FineWebRules,
    GopherQuality,
    GopherRepetition,
    Rule,
)
from llama_jax.config.run import (
    CheckpointConfig,
    ComputeConfig,
    EvaluateConfig,
    LogConfig,
    MeshConfig,
    RunConfig,
    TrainConfig,
)
from llama_jax.config.tiles import KernelTiles

__all__ = [
    "AdamW",
    "ArxivSource",
    "BooksSource",
    "BuildConfig",
    "C4Rules",
    "CheckpointConfig",
    "CodeRules",
    "CommonCrawlSource",
    "CompleteP",
    "ComputeConfig",
    "Cosine",
    "DataConfig",
    "Decontamination",
    "Deduplication",
    "EvaluateConfig",
    "FilesSource",
    "Filter",
    "FineWebRules",
    "GitHubSource",
    "GopherQuality",
    "GopherRepetition",
    "GuardConfig",
    "KernelTiles",
    "LadderConfig",
    "LanguageFilter",
    "Linear",
    "LinearRope",
    "Llama3Rope",
    "LogConfig",
    "MeshConfig",
    "MinHash",
    "ModelConfig",
    "MuP",
    "Muon",
    "Optimizer",
    "ParagraphDedup",
    "Parameterisation",
    "PersonalData",
    "PlainRope",
    "PythonEnvironmentSource",
    "QualityClassifier",
    "Rope",
    "Rule",
    "RunConfig",
    "Rung",
    "Schedule",
    "Source",
    "StackExchangeSource",
    "TokenizerFile",
    "TokenizerTraining",
    "TrainConfig",
    "WarmupStableDecay",
    "WikipediaSource",
]
