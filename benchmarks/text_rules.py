"""Megabytes of text that one core measures and judges by all quality rules, against datatrove.

Command: python benchmarks/text_rules.py [--corpora FOLDER]

Everything runs in this process, pinned to one core, over the same real documents: articles, web
pages, pieces of books and source files. Each round forgets the words of the one before, as if the
documents were the first of a corpus; one line shows the rate where every word was met before. The
peer (where `datatrove` and spaCy are installed) runs its four filters on each document. Both stop
at the first rule that a document breaks. Each rate is the best of several rounds, in wall time and
in CPU time.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable

import tyro
from samples.texts import TextOptions

from data_pipelines.document import Document, Dropped
from data_pipelines.stages import rules as stage
from llama_jax.config import C4Rules, FineWebRules, GopherQuality, GopherRepetition

ALL_RULES = (C4Rules(), GopherRepetition(), GopherQuality(), FineWebRules())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TextOptions):
    """What is measured."""

    documents: int = 1000
    """Documents, a quarter of each kind where there are enough."""
    peer_documents: int = 200
    """Every n-th of them, so many, for the peer; it is slow."""


def main(options: Options) -> None:
    """Measures and prints one line each."""
    if not (texts := options.texts()):
        return
    kinds = {"C4": ALL_RULES[:1], "Gopher repetition": ALL_RULES[1:2]}
    kinds |= {"Gopher quality": ALL_RULES[2:3], "FineWeb": ALL_RULES[3:], "all rules": ALL_RULES}
    kinds |= {"all rules without C4": ALL_RULES[1:]}
    rates = [
        options.rate(name, texts, functools.partial(_ours, rules=rules))
        for name, rules in kinds.items()
    ]
    known = functools.partial(_judge, rules=ALL_RULES[1:])
    rates.append(options.rate("the same, every word met before", texts, known))
    on_few, peer = "all rules, ours on the peer's sample", "datatrove"
    if importlib.util.find_spec("datatrove") and importlib.util.find_spec("spacy"):
        few = texts[:: max(len(texts) // options.peer_documents, 1)]
        rates.append(options.rate(on_few, few, _ours))
        rates.append(options.rate(peer, few, _peer()))
    options.report(texts, rates, {peer: on_few})


def _ours(texts: list[str], rules: tuple = ALL_RULES) -> None:
    stage._vocabulary.cache_clear()
    _judge(texts, rules)


def _judge(texts: list[str], rules: tuple) -> None:
    documents = (Document(str(number), text) for number, text in enumerate(texts))
    for _ in stage.RuleFilter(rules).keep(documents, Dropped()):
        pass


def _peer() -> Callable[[list[str]], None]:
    from datatrove.data import Document as PeerDocument
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = [
        C4QualityFilter(),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        FineWebQualityFilter(),
    ]

    def run(texts: list[str]) -> None:
        for number, text in enumerate(texts):
            document = PeerDocument(text=text, id=str(number))
            all(kind.filter(document) is True for kind in filters)

    return run


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
