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
from collections.abc import Callable

import tyro
from samples.texts import TextOptions

from data_pipelines.stages.minhash import Signer, plain
from llama_jax.config import MinHash

_BATCH = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TextOptions):
    """What is measured."""

    documents: int = 4000
    """Documents, a quarter of each kind where there are enough."""
    peer_documents: int = 200
    """Every n-th of them, so many, for the peers; they are slow."""


def main(options: Options) -> None:
    """Measures and prints one line each."""
    if not (texts := options.texts()):
        return
    few = texts[:: max(len(texts) // options.peer_documents, 1)]
    books = [path.read_text("utf-8", "replace") for path in options.corpora.glob("books/*/*.txt")]
    on_few, peers = (
        "ours on the peers' sample",
        {"datasketch": _datasketch, "datatrove": _datatrove},
    )
    rates = [
        options.rate("ours", texts, _ours),
        options.rate("ours, whole books", books, _ours),
        options.rate(on_few, few, _ours),
    ]
    for name, peer in peers.items():
        if importlib.util.find_spec(name):
            rates.append(options.rate(name, few, peer()))
    options.report(texts, rates, dict.fromkeys(peers, on_few))


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
