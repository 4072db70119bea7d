"""The filters of a source, ready to be put one after the other."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from llama_jax.config import (
    C4Rules,
    CodeRules,
    Decontamination,
    Filter,
    FineWebRules,
    GopherQuality,
    GopherRepetition,
    LanguageFilter,
    PersonalData,
    QualityClassifier,
    Rule,
)

from ..document import Document, DocumentFilter, Dropped


def open_filters(filters: Sequence[Filter]) -> list[DocumentFilter]:
    """Filters in the order given; text rules that stand side by side share one pass."""
    opened = []
    for are_rules, group in itertools.groupby(filters, key=_is_rule):
        if are_rules:
            from .rules import RuleFilter

            opened.append(RuleFilter(tuple(cast(Iterable[Rule], group))))
        else:
            opened.extend(map(_open, group))
    return opened


def apply_filters(
    filters: Sequence[DocumentFilter], documents: Iterable[Document], dropped: Dropped
) -> Iterator[Document]:
    """Documents that pass all filters, as the last one leaves them."""
    for each in filters:
        documents = each.keep(documents, dropped)
    yield from documents


def _is_rule(given: Filter) -> bool:
    return isinstance(given, GopherQuality | GopherRepetition | C4Rules | FineWebRules)


def _open(given: Filter) -> DocumentFilter:
    # Each brings libraries that only those who use it should wait for.
    match given:
        case LanguageFilter():
            from .language import LanguageStage

            return LanguageStage(given)
        case PersonalData():
            from .personal_data import PersonalDataStage

            return PersonalDataStage(given)
        case Decontamination():
            from .decontaminate import DecontaminationStage

            return DecontaminationStage(given)
        case QualityClassifier():
            from .classifier import ClassifierStage

            return ClassifierStage(given)
        case CodeRules():
            from .code_rules import CodeFilter

            return CodeFilter(given)
        case _:
            raise AssertionError(given)
