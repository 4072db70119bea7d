"""Which near duplicates are found, against the Jaccard similarity of every pair counted exactly.

Command: python benchmarks/near_duplicates.py [--corpora FOLDER]

Real articles, pages, pieces of books and source files, and a copy of every third document with up
to 6% of its words replaced. Similarity is that of the sets of 5-grams of words. Signatures, pairs
and groups are made as a build makes them, with FineWeb's 14 bands of 8 rows.
"""

import dataclasses
import hashlib
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from samples.texts import CORPORA, real_documents
from scipy import sparse

from data_pipelines.document import Document
from data_pipelines.stages.minhash import plain, sign
from data_pipelines.stages.near_duplicates import cluster, match
from data_pipelines.stages.spill import Resources
from data_pipelines.tables import Hashed, write_documents
from llama_jax.config import MinHash

_ALIKE = 0.85
_LIMITS = (0.85, 0.7, 0.6, 0.4)
_MOST_REPLACED = 0.06
_ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared."""

    corpora: Path = CORPORA
    """Folder with the samples."""
    documents: int = 2000
    """Before copies are made."""
    threshold: float = MinHash().threshold
    """Share of minima that must agree; 0 takes all that share a band."""


def main(options: Options) -> None:
    """Prints how many alike pairs are found, and how alike those found are."""
    if not (texts := real_documents(options.corpora, options.documents)):
        print(f"--corpora {options.corpora}: no documents there; nothing is measured.")
        return
    texts += [edited(text, seed) for seed, text in enumerate(texts[::3])]
    documents = sorted({_hashed(text) for text in texts if plain(text).split()})
    config = MinHash(threshold=options.threshold)
    alike = similarities([each.document.text for each in documents], config.ngram)
    with tempfile.TemporaryDirectory() as folder:
        pairs, group = find(documents, config, Path(folder))
    wanted = [pair for pair, similarity in alike.items() if similarity >= _ALIKE]
    direct = sum(pair in pairs for pair in wanted)
    together = sum(group[a] == group[b] for a, b in wanted)
    print(f"{len(documents)} documents, {len(wanted)} pairs of {_ALIKE} and above")
    print(f"  compared directly and found: {direct / len(wanted):.1%}")
    print(f"  in one group: {together / len(wanted):.1%}")
    found = np.array([alike.get(pair, 0.0) for pair in pairs])
    below = ", ".join(f"{np.sum(found < limit)} below {limit}" for limit in _LIMITS)
    print(f"{len(pairs)} pairs found: {below}")


def edited(text: str, seed: int) -> str:
    """A copy with up to 6% of its words replaced."""
    lot, words = random.Random(seed), text.split(" ")
    for at in lot.sample(range(len(words)), int(len(words) * lot.uniform(0, _MOST_REPLACED))):
        words[at] = f"edit{lot.randrange(1000)}"
    return " ".join(words)


def similarities(texts: list[str], ngram: int) -> dict[tuple[int, int], float]:
    """Jaccard similarity of each pair of texts, by their places, that have an n-gram in common."""
    numbers: dict[bytes, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        words = plain(text).split()
        grams = {b" ".join(words[at : at + ngram]) for at in range(max(len(words) - ngram + 1, 1))}
        columns += [numbers.setdefault(gram, len(numbers)) for gram in grams]
        rows += [row] * len(grams)
    ones = np.ones(len(rows), np.int32)
    matrix = sparse.csr_matrix((ones, (rows, columns)), (len(texts), len(numbers)))
    sizes, found = np.diff(matrix.indptr), {}
    other = matrix.T.tocsc()
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        common = (matrix[start : start + _ROWS_AT_ONCE] @ other).tocoo()
        a, b = common.row + start, common.col
        similarity = common.data / (sizes[a] + sizes[b] - common.data)
        # Others are below every limit that is told.
        for at in np.flatnonzero((a < b) & (similarity >= min(_LIMITS) / 2)):
            found[int(a[at]), int(b[at])] = float(similarity[at])
    return found


def find(
    documents: list[Hashed], config: MinHash, folder: Path
) -> tuple[set[tuple[int, int]], list[int]]:
    """Pairs found, by the documents' places, and of each document the one that stays for it."""
    resources = Resources(scratch=folder / "scratch", memory_bytes=1 << 30)
    write_documents(folder / "documents", documents)
    sign(folder / "documents", folder / "signatures", config)
    bands = [folder / f"pairs-{band}" for band in range(config.bands)]
    for band, path in enumerate(bands):
        match([folder / "signatures"], band, path, config, resources)
    cluster([folder / "signatures"], bands, [folder / "removed"], folder / "sizes", resources)
    # Rows of one file of signatures are its documents.
    table = pa.concat_tables([pq.read_table(path) for path in bands])
    ends = np.sort(np.stack([table.column(name).to_numpy() for name in "ab"], 1), axis=1)
    place = {each.digest: at for at, each in enumerate(documents)}
    stays = list(range(len(documents)))
    for row in pq.read_table(folder / "removed").to_pylist():
        stays[place[row["digest"]]] = place[row["stays"]]
    return {(int(a), int(b)) for a, b in ends}, stays


def _hashed(text: str) -> Hashed:
    return Hashed(hashlib.sha256(text.encode()).digest(), Document("", text))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
