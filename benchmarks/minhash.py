"""Megabytes of text that one core makes MinHash signatures of, beside datasketch and datatrove.

Command: python benchmarks/minhash.py [--corpora FOLDER]

Everything runs in this process, pinned to one core, over the same real documents: web pages,
articles and whole books. All make 112 minima over 5-grams of words, 14 bands of 8. datasketch gives
no words, so it gets ours; datatrove splits words as spaCy does. Each peer takes part where it is
installed, with fewer of the documents. Each rate is the best of several rounds, in wall time and
in CPU time.
"""

import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import tyro
from text_rules import CORPORA, best_rate, print_rates, real_documents

from data_pipelines.stages.minhash import Signer, plain
from llama_jax.config import MinHash

_BATCH = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    corpora: Path = CORPORA
    """Folder with `wikipedia`, `books`, `commoncrawl` and `github`."""
    documents: int = 4000
    """Documents, a quarter of each kind where there are enough."""
    peer_documents: int = 200
    """Every n-th of them, so many, for the peers; they are slow."""
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
    few = texts[:: max(len(texts) // options.peer_documents, 1)]
    books = [path.read_text("utf-8", "replace") for path in options.corpora.glob("books/*/*.txt")]
    rates = [
        best_rate("ours", texts, _ours, options.rounds),
        best_rate("ours, whole books", books, _ours, options.rounds),
        best_rate("ours on the peers' sample", few, _ours, options.rounds),
    ]
    for name, peer in (("datasketch", _datasketch), ("datatrove", _datatrove)):
        if importlib.util.find_spec(name):
            rates.append(best_rate(name, few, peer(), options.rounds))
        else:
            print(f"{name} is not installed here: no ratio.", file=sys.stderr)
    if options.json:
        print(json.dumps([dataclasses.asdict(rate) for rate in rates], indent=2))
        return
    print_rates(texts, rates, options.rounds)
    for peer in rates[3:]:
        wall, cpu = rates[2].wall / peer.wall, rates[2].cpu / peer.cpu
        print(f"{'ratio to ' + peer.name:38} {wall:7.1f} {cpu:7.1f}")


def _ours(texts: list[str]) -> None:
    signer = Signer(MinHash())
    for start in range(0, len(texts), _BATCH):
        signer.sign(texts[start : start + _BATCH])


def _datasketch() -> Callable[[list[str]], None]:
    from datasketch import MinHash as PeerMinHash

    def run(texts: list[str]) -> None:
        for text in texts:
            words = plain(text).split()
            grams = {b" ".join(words[at : at + 5]) for at in range(max(len(words) - 4, 1))}
            PeerMinHash(num_perm=112).update_batch(grams)

    return run


def _datatrove() -> Callable[[list[str]], None]:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    peer = MinhashDedupSignature("unused", MinhashConfig())

    def run(texts: list[str]) -> None:
        for text in texts:
            if (grams := peer.get_shingles(text)).size:
                peer.get_signature(grams)

    return run


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
