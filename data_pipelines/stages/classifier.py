"""Scores documents by a linear model of their words, and keeps those that score well.

A document's score is the logistic function of a bias plus the mean weight of its words and pairs of
neighbouring words, among its first 1,048,576 characters. Which weight a word or pair has is told by
the upper bits of its number (`word_hashes`), so that the model is one array of numbers whatever the
vocabulary.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_jax.checksum import file_sha256
from llama_jax.config import QualityClassifier

from ..document import Document, Dropped
from .batches import batches
from .word_hashes import hash_words, ngrams

FORMAT = "llama_jax quality classifier 1"
_MAX_CHARACTERS = 1 << 20


class Model(NamedTuple):
    """A linear model.

    Attributes:
        weights: One a feature, a power of two of them.
        bias: Added to the mean weight.
        account: What it was trained on and how well it does.
    """

    weights: np.ndarray
    bias: float
    account: dict[str, Any]

    def scores(self, texts: list[str]) -> np.ndarray:
        """Of each text, in [0, 1]; 0 for one without words."""
        features, counts = features_of(texts, len(self.weights))
        sums = np.zeros(len(texts))
        has = np.flatnonzero(counts)
        if len(has):
            starts = (np.cumsum(counts) - counts)[has]
            sums[has] = np.add.reduceat(self.weights[features].astype(np.float64), starts)
        scores = 1 / (1 + np.exp(-(sums / np.maximum(counts, 1) + self.bias)))
        return np.where(counts > 0, scores, 0.0)


def features_of(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Features below `size` of all texts end to end, and how many each text has."""
    hashed = hash_words([text[:_MAX_CHARACTERS] for text in texts])
    pairs = ngrams(hashed.numbers, 2)
    inside = hashed.text[1:] == hashed.text[:-1]
    text = np.concatenate((hashed.text, hashed.text[1:][inside]))
    order = np.argsort(text, kind="stable")
    numbers = np.concatenate((hashed.numbers, pairs[inside]))[order]
    features = (numbers >> np.uint64(64 - (size.bit_length() - 1))).astype(np.int64)
    return features, np.bincount(text, minlength=len(texts))


def write_model(model: Model, path: Path) -> None:
    """Writes a safetensors file: numbers, and the account as text."""
    from safetensors.numpy import save_file

    tensors = {
        "weights": model.weights.astype(np.float32),
        "bias": np.array([model.bias], np.float32),
    }
    save_file(tensors, path, {"format": FORMAT, "account": json.dumps(model.account)})


def read_model(path: str) -> Model:
    """Reads what `write_model` wrote.

    Raises:
        ValueError: If there is no such model.
    """
    from safetensors import SafetensorError, safe_open

    where = f"filters.quality_classifier.path={path!r}"
    fix = "give a file written by `llama-jax data classifier train`."
    if not Path(path).is_file():
        raise ValueError(f"{where}: there is no such file; {fix}")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{where} is no quality classifier; {fix}")
            weights, (bias,) = file.get_tensor("weights"), file.get_tensor("bias")
            model = Model(weights, float(bias), json.loads(metadata["account"]))
    except SafetensorError as error:
        raise ValueError(f"{where} is damaged or no safetensors file ({error}); {fix}") from error
    if len(weights) < 2 or len(weights) & (len(weights) - 1) or not np.isfinite(weights).all():
        raise ValueError(f"{where} has weights that are no model; {fix}")
    return model


class ClassifierStage:
    """Drops documents with a low score.

    Raises:
        ValueError: If there is no model.
    """

    def __init__(self, config: QualityClassifier):
        self._config = config
        self._model = read_model(config.path)

    def fingerprint(self) -> str:
        """Changes with the model."""
        return file_sha256(Path(self._config.path))

    def keep(self, documents: Iterable[Document], dropped: Dropped) -> Iterator[Document]:
        """See `DocumentFilter`; scores are noted by tenths."""
        for batch in batches(documents):
            scores = self._model.scores([document.text for document in batch]).tolist()
            for document, score in zip(batch, scores, strict=True):
                dropped.note("quality score", f"{min(int(score * 10), 9) / 10:.1f}")
                if score > (limit := self._limit(document)):
                    yield document
                else:
                    dropped.add(
                        "quality classifier: score",
                        document.id,
                        document.text,
                        value=f"{score:.3f}",
                        allowed=f"above {limit:.3f}",
                    )

    def _limit(self, document: Document) -> float:
        if self._config.keep == "above":
            return self._config.keep_above
        digest = hashlib.sha256(document.text.encode()).digest()
        uniform = (int.from_bytes(digest[:8], "big") + 1) / (1 << 64)
        return 1 - (uniform ** (-1 / self._config.pareto_alpha) - 1)
