"""Trains the quality classifier by logistic regression, and says how well it does.

Web pages of one site fall together into training or into the held-out part, by the hash of the
site: they resemble each other, and would flatter the model. Other documents fall by themselves.
"""

import hashlib
import heapq
from typing import Any, NamedTuple

import numpy as np

from ..document import Document
from .classifier import Model, features_of
from .sites import host_of

_HELD_OUT = 0.2
_MIN_DOCUMENTS = 10
_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)


class Sample(NamedTuple):
    """A document for training.

    Attributes:
        digest: Hash of the text.
        group: Site, or the document itself.
        text: Its text.
    """

    digest: bytes
    group: str
    text: str


class Choice:
    """Different texts, at most so many, by hash: the same whatever their order.

    Args:
        count: At most so many.
        are_pages: Whether addresses say which site a document is of; all articles of an
            encyclopedia are at one site.
    """

    def __init__(self, count: int, *, are_pages: bool = True):
        self._count, self._are_pages = count, are_pages
        self._chosen: list[tuple[int, Sample]] = []
        self._known: set[bytes] = set()

    def add(self, document: Document) -> None:
        """Takes a document if it is among the first so far."""
        digest = hashlib.sha256(document.text.encode()).digest()
        rank = -int.from_bytes(digest, "big")
        full = len(self._chosen) == self._count
        if digest in self._known or (full and rank < self._chosen[0][0]):
            return
        self._known.add(digest)
        site = host_of(document.url) if self._are_pages else ""
        sample = Sample(digest, site or document.id, document.text)
        heapq.heappush(self._chosen, (rank, sample))
        if full:
            self._known.discard(heapq.heappop(self._chosen)[1].digest)

    def samples(self) -> list[Sample]:
        """Those taken, in order of their hashes."""
        return sorted(sample for _, sample in self._chosen)


def train(
    good: list[Sample], bad: list[Sample], *, num_features: int, inverse_penalty: float
) -> Model:
    """Fits the weights on four fifths of the groups and measures on the others.

    Args:
        good: Documents that should score 1.
        bad: Documents that should score 0; those that are good ones too are left out.
        num_features: Weights, a power of two.
        inverse_penalty: `C` of the L2 penalty; higher fits the training documents more closely.

    Raises:
        ValueError: If there are too few of either.
    """
    from sklearn.linear_model import LogisticRegression

    known = {sample.digest for sample in good}
    samples = good + [sample for sample in bad if sample.digest not in known]
    labels = np.array([1] * len(good) + [0] * (len(samples) - len(good)))
    held_out = np.array([_is_held_out(sample.group) for sample in samples])
    for name, label in (("good", 1), ("bad", 0)):
        for part, rows in (("train on", ~held_out), ("measure with", held_out)):
            if (count := int(np.sum((labels == label) & rows))) < _MIN_DOCUMENTS:
                raise ValueError(
                    f"--{name} gives {count} documents to {part}, {_MIN_DOCUMENTS} are needed: give"
                    " more, of more than one site."
                )
    rows = _matrix([sample.text for sample in samples], num_features)
    fit = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=1000)
    fit.fit(rows[~held_out], labels[~held_out])
    weights, bias = np.asarray(fit.coef_)[0], np.asarray(fit.intercept_)[0]
    model = Model(weights.astype(np.float32), float(bias), {})
    tested = np.flatnonzero(held_out)
    scores = model.scores([samples[row].text for row in tested])
    groups = [samples[row].group for row in tested]
    digest = hashlib.sha256(
        b"".join(s.digest + bytes([y]) for s, y in zip(samples, labels, strict=True))
    )
    account = {
        "training_data_sha256": digest.hexdigest(),
        "inverse_penalty": inverse_penalty,
        "good_documents": len(good),
        "bad_documents": len(samples) - len(good),
        "held_out": _measure(scores, labels[tested], groups),
    }
    return model._replace(account=account)


def _is_held_out(group: str) -> bool:
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:8], "big") < _HELD_OUT * (1 << 64)


def _matrix(texts: list[str], num_features: int) -> Any:
    from scipy.sparse import csr_matrix

    features, counts = features_of(texts, num_features)
    values = np.repeat(1 / np.maximum(counts, 1), counts)
    ends = np.concatenate(([0], np.cumsum(counts)))
    rows = csr_matrix((values, features, ends), (len(texts), num_features))
    rows.sum_duplicates()
    return rows


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often a good document scores above another one; ties count half.

    By ranks, for it is wanted a thousand times; scikit-learn's takes a millisecond each.
    """
    from scipy.stats import rankdata

    good = int(labels.sum())
    wins = rankdata(scores)[labels == 1].sum() - good * (good + 1) / 2
    return float(wins / (good * (len(labels) - good)))


def _measure(scores: np.ndarray, labels: np.ndarray, groups: list[str]) -> dict[str, Any]:
    """Accuracy and area under the curve, with the interval when groups are drawn again."""
    _, group = np.unique(groups, return_inverse=True)
    rows_of = [np.flatnonzero(group == number) for number in range(group.max() + 1)]
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
        if 0 < labels[drawn].sum() < len(drawn):
            areas.append(area_under_curve(scores[drawn], labels[drawn]))
    return {
        "documents": len(scores),
        "groups": len(rows_of),
        "accuracy": round(float(np.mean((scores > 0.5) == labels)), 4),
        "auc": round(area_under_curve(scores, labels), 4),
        "auc_interval": [round(float(value), 4) for value in np.percentile(areas, _INTERVAL)],
    }
