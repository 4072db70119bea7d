"""Megabytes of text that one core takes through each document filter.

Command: python benchmarks/filters.py [--corpora FOLDER]

Everything runs in this process, pinned to one core, over the same real documents as
`benchmarks/text_rules.py`: articles, web pages, pieces of books and source files. Evaluation sets
are those in the corpora; the classifier's weights are drawn by lot, which makes no difference to
its rate. Each rate is the best of several rounds, in wall time and in CPU time.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import tyro
from samples.texts import TextOptions

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


def main(options: TextOptions) -> None:
    """Measures and prints one line each."""
    if not (texts := options.texts()):
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
        rates = []
        for name, kind in kinds.items():
            (opened,) = open_filters([kind])
            rates.append(options.rate(name, texts, functools.partial(_run, opened)))
    options.report(texts, rates, {})


def _run(opened: DocumentFilter, texts: list[str]) -> None:
    documents = (Document(str(number), text) for number, text in enumerate(texts))
    for _ in opened.keep(documents, Dropped()):
        pass


if __name__ == "__main__":
    main(tyro.cli(TextOptions, description=__doc__))
