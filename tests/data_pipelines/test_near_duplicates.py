"""Near duplicates are found, grouped and all but one removed, the same way every time."""

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.minhash import sign
from data_pipelines.stages.near_duplicates import cluster, match, remove
from data_pipelines.stages.spill import Resources
from data_pipelines.tables import Hashed
from llama_jax.config import MinHash

pytest.importorskip("duckdb")
BUCKETS = 3
BOOKS = Path(__file__).parents[3] / "shared" / "corpora" / "books"


def prose(count, *, seed):
    chosen = random.Random(seed)
    return [f"w{chosen.randrange(10**6)}" for _ in range(count)]


def edited(words, count, *, seed):
    chosen = random.Random(seed)
    words = list(words)
    for at in chosen.sample(range(len(words)), count):
        words[at] = f"edit{seed}"
    return words


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def find(folder, texts, config=None, *, memory_bytes=1 << 28, threads=1):
    """Removed text -> the text that stays; also leaves all files in `folder`."""
    config = config or MinHash()
    folder.mkdir(exist_ok=True)
    resources = Resources(scratch=folder / "scratch", memory_bytes=memory_bytes, threads=threads)
    by_digest = {digest(text): text for text in texts}
    signatures = []
    for bucket in range(BUCKETS):
        some = sorted(key for key in by_digest if key[0] * BUCKETS >> 8 == bucket)
        table = {"digest": pa.array(some, pa.binary(32)), "text": [by_digest[key] for key in some]}
        table["text"] = pa.array(table["text"], pa.string())
        pq.write_table(pa.table(table), folder / f"documents-{bucket}", row_group_size=64)
        signatures.append(folder / f"signatures-{bucket}")
        sign(folder / f"documents-{bucket}", signatures[-1], config)
    pairs = [folder / f"pairs-{band}" for band in range(config.bands)]
    for band, path in enumerate(pairs):
        match(signatures, band, path, config, resources)
    removed = [folder / f"removed-{bucket}" for bucket in range(BUCKETS)]
    cluster(signatures, pairs, removed, folder / "sizes", resources)
    rows = pa.concat_tables([pq.read_table(path) for path in removed]).to_pylist()
    return {by_digest[row["digest"]]: by_digest[row["stays"]] for row in rows}


def sizes(folder):
    rows = pq.read_table(folder / "sizes").to_pylist()
    return {row["documents"]: row["groups"] for row in rows}


def test_of_a_group_the_longest_stays(tmp_path):
    base = prose(400, seed=0)
    texts = [" ".join(words) for words in (base, [*base, "more"], edited(base, 2, seed=1))]
    other = " ".join(prose(400, seed=2))
    longest = max(texts, key=len)
    assert find(tmp_path, [*texts, other]) == {t: longest for t in texts if t != longest}
    assert sizes(tmp_path) == {3: 1}


def test_of_documents_as_long_the_first_by_digest_stays(tmp_path):
    base = " ".join(prose(300, seed=0))
    texts = [base, base.upper(), base.title(), base.replace(" ", "\n"), base.replace(" ", "\t")]
    stays = min(texts, key=digest)
    assert find(tmp_path, texts) == {text: stays for text in texts if text != stays}


@pytest.mark.parametrize("length", [2, 9, 40])
def test_alike_documents_join_through_others(tmp_path, length):
    words, texts = prose(200, seed=0), []
    for step in range(length):
        texts.append(" ".join(words))
        words[step * 4] = f"changed{step}"
    longest = sorted(texts, key=lambda text: (-len(text), digest(text)))[0]
    assert set(find(tmp_path, texts).values()) == {longest}
    assert sizes(tmp_path) == {length: 1}


def test_groups_larger_than_a_batch_stay_together(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.spill._READ_ROWS", 7)
    base = prose(150, seed=0)
    texts = [" ".join(edited(base, 1, seed=seed)) for seed in range(1, 60)]
    others = [" ".join(prose(150, seed=seed)) for seed in range(100, 140)]
    assert len(find(tmp_path, texts + others)) == len(texts) - 1
    assert sizes(tmp_path) == {len(texts): 1}


def test_a_key_shared_across_batches_is_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.spill._READ_ROWS", 2)
    texts = ["same words" + " " * number for number in range(25)]
    assert set(find(tmp_path, texts, MinHash(bands=1, rows=1)).values()) == {texts[-1]}
    assert sizes(tmp_path) == {25: 1}


def test_pairs_below_the_threshold_are_left_alone(tmp_path):
    texts = []
    for seed in range(40):
        base = prose(200, seed=seed)
        texts += [" ".join(base), " ".join(edited(base, 20, seed=seed + 1000))]
    many = find(tmp_path / "all", texts, MinHash(bands=10, rows=2, threshold=0))
    few = find(tmp_path / "alike", texts, MinHash(bands=10, rows=2, threshold=0.8))
    assert len(many) > 20
    assert not few


def test_bytes_do_not_depend_on_memory_or_threads(tmp_path):
    texts = [" ".join(edited(prose(80, seed=n % 60), n % 5, seed=n)) for n in range(400)]
    find(tmp_path / "a", texts)
    find(tmp_path / "b", texts[::-1], memory_bytes=1 << 26, threads=3)
    for path in sorted((tmp_path / "a").glob("[rs]*[0-9s]")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_nothing_is_left_in_scratch(tmp_path):
    find(tmp_path, ["one text", "One text!"])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_empty_buckets_have_empty_files(tmp_path):
    assert find(tmp_path, []) == {}
    assert find(tmp_path, ["", "?!"]) == {}
    assert sizes(tmp_path) == {}


def test_removed_documents_are_recorded_and_others_pass(tmp_path):
    base = prose(300, seed=0)
    texts = [" ".join(edited(base, 1, seed=seed)) for seed in range(1, 12)] + ["alone", "?!"]
    removed = find(tmp_path, texts)
    dropped, kept = Dropped(), []
    for bucket in range(BUCKETS):
        rows = pq.read_table(tmp_path / f"documents-{bucket}").to_pylist()
        hashed = [Hashed(row["digest"], Document(row["text"][:9], row["text"])) for row in rows]
        kept += remove(hashed, tmp_path / f"removed-{bucket}", dropped)
    assert {hashed.document.text for hashed in kept} == set(texts) - set(removed)
    assert dropped.counts == {"near duplicate": 10}
    stays = digest(next(iter(removed.values()))).hex()
    assert all(example.endswith(f"(of {stays})") for example in dropped.examples["near duplicate"])


def test_older_versions_of_a_book_are_found(tmp_path):
    if not BOOKS.is_dir():
        pytest.skip(f"{BOOKS} is not there")
    paths = {
        path.read_bytes().decode("utf-8", "replace"): path for path in sorted(BOOKS.rglob("*.txt"))
    }
    removed = find(tmp_path, list(paths))
    stays = {paths[gone].name: paths[kept].name for gone, kept in removed.items()}
    finns = "76.txt", "hfinn10.txt", "hfinn11.txt", "hfinn12.txt", "2011-05-03-76.txt"
    assert {name: stays[name] for name in finns} == dict.fromkeys(finns, "76-0.txt")
    assert stays["2701.txt"] == "2701-0.txt"
    for gone, kept in removed.items():
        assert paths[gone].relative_to(BOOKS).parts[0] == paths[kept].relative_to(BOOKS).parts[0]


def test_pairs_above_85_percent_are_found(tmp_path):
    texts = []
    for seed in range(300):
        base = prose(250, seed=seed)
        texts.append((" ".join(base), " ".join(edited(base, 1 + seed % 4, seed=seed))))
    removed = find(tmp_path, [text for pair in texts for text in pair])
    found = [removed.get(a) == b or removed.get(b) == a for a, b in texts]
    assert sum(found) >= 0.95 * len(found)
