"""Megabytes of text that one core encodes, beside the tokenizers' own libraries.

Command: python benchmarks/encode.py [--corpora FOLDER]

LLaMA-2's model through ours and through SentencePiece alone, LLaMA-3's through ours and through
tiktoken alone, over the same real documents and over whole books. Ours gives arrays with the ids
that begin and end a document; the libraries give lists. Everything runs in this process, pinned to
one core. Each rate is the best of several rounds, in wall time and in CPU time.
"""

import functools
from collections.abc import Callable, Sequence

import sentencepiece
import tiktoken
import tyro
from samples.texts import TextOptions

from llama_jax.data.tiktoken import TiktokenTokenizer
from llama_jax.data.tokenizer import Tokenizer, load_tokenizer

LIBRARIES = {"llama2.model": "SentencePiece", "llama3.tiktoken": "tiktoken"}


def main(options: TextOptions) -> None:
    """Measures and prints one line each."""
    if not (documents := options.texts()):
        return
    books = [path.read_text("utf-8", "replace") for path in options.corpora.glob("books/*/*.txt")]
    for kind, texts in {"documents": documents, "whole books": books}.items():
        rates, peers = [], {}
        for file, library in LIBRARIES.items():
            tokenizer = load_tokenizer(options.corpora / "tokenizers" / file)
            ours, peer = f"{file}, {kind}", f"{library} alone, {kind}"
            peers[peer] = ours
            encode = functools.partial(tokenizer.encode_batch, bos=True, eos=True)
            rates.append(options.rate(ours, texts, encode))
            rates.append(options.rate(peer, texts, _library(tokenizer)))
        options.report(texts, rates, peers)


def _library(tokenizer: Tokenizer) -> Callable[[Sequence[str]], object]:
    if isinstance(tokenizer, TiktokenTokenizer):
        encoding = tiktoken.Encoding(
            "alone",
            pat_str=tokenizer.pattern,
            mergeable_ranks=tokenizer.ranks,
            special_tokens=tokenizer.special,
        )
        return lambda texts: [encoding.encode_ordinary(text) for text in texts]
    library = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    return lambda texts: library.encode(texts, num_threads=1)


if __name__ == "__main__":
    main(tyro.cli(TextOptions, description=__doc__))
