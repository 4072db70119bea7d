"""Megabytes of text that one core takes through each document filter.

Command: python benchmarks/filters.py [--corpora FOLDER]

Everything runs in this process, pinned to one core, over the same real documents as
`benchmarks/text_rules.py`: articles, web pages, pieces of books and source files. Evaluation sets
are those in the corpora; the classifier's weights are drawn by lot, which makes no difference to
its rate. Each rate is the best of several rounds, in wall time and in CPU time.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import tyro
from text_rules import CORPORA, Rate, best_rate, print_rates, real_documents

from data_pipelines.document import Document, DocumentFilter, Dropped
from data_pipelines.stages.classifier import Model, write_model
from data_pipelines.stages.filters import open_filters
from llama_jax.config import (
    CodeRules,
    Decontamination,
    Filter,
    LanguageFilter,
    PersonalData,
    QualityClassifier,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    corpora: Path = CORPORA
    """Folder with `wikipedia`, `books`, `commoncrawl`, `github` and `eval`."""
    documents: int = 2000
    """Documents, a quarter of each kind where there are enough."""
    rounds: int = 3
    """Rounds, of which the best counts."""
    json: bool = False
    """Print one JSON document."""


def main(options: Options) -> None:
    """Measures and prints one line each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = real_documents(options.corpora, options.documents)
    if not texts:
        print(f"--corpora {options.corpora}: no documents there; nothing is measured.")
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "quality.model"
        weights = np.random.default_rng(0).normal(size=1 << 18).astype(np.float32)
        write_model(Model(weights, 0.0, {}), model)
        kinds: dict[str, Filter] = {
            "language": LanguageFilter(languages=()),
            "personal data": PersonalData(),
            "quality classifier": QualityClassifier(path=str(model)),
            "code": CodeRules(),
        }
        if (options.corpora / "eval").is_dir():
            kinds["evaluation sets"] = Decontamination(paths=(str(options.corpora / "eval"),))
        rates = [_rate(name, kind, texts, options) for name, kind in kinds.items()]
    if options.json:
        print(json.dumps([dataclasses.asdict(rate) for rate in rates], indent=2))
        return
    print_rates(texts, rates, options.rounds)


def _rate(name: str, kind: Filter, texts: list[str], options: Options) -> Rate:
    (opened,) = open_filters([kind])
    return best_rate(name, texts, lambda texts: _run(opened, texts), options.rounds)


def _run(opened: DocumentFilter, texts: list[str]) -> None:
    documents = (Document(str(number), text) for number, text in enumerate(texts))
    for _ in opened.keep(documents, Dropped()):
        pass


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
