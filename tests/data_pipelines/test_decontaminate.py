"""Documents with an evaluation item's words in them are found, and no others."""

import bz2
import gzip
import json
import random
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages.filters import open_filters
from data_pipelines.stages.word_hashes import hash_words
from llama_jax.config import Decontamination, FilesSource
from llama_jax.recipe import from_json, to_json

EVAL = Path(__file__).parents[3] / "shared/corpora/eval"
ITEM = "The miller's old grey donkey carried nine sacks of barley over the broken bridge at noon."
SHORT = "Which river did the grey donkey cross at noon?"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def one_item(tmp_path):
    return write(tmp_path / "set.jsonl", [{"id": 1, "q": SHORT}, {"choices": [{"text": ITEM}]}])


def passed(path, *texts, **config):
    """Texts that stay, and the account."""
    dropped = Dropped()
    (stage,) = open_filters([Decontamination(paths=(path,), **config)])
    documents = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    return [document.text for document in stage.keep(documents, dropped)], dropped


def test_thirteen_words_in_a_row_are_found_whatever_stands_between_them(one_item):
    words = ITEM.split()
    loud = "so\n\n" + ", ".join(words[:12]).upper() + " — “so”"
    # "miller's" is two words.
    kept, dropped = passed(one_item, loud, " ".join(words[:11]), "… ".join(words[4:]))
    assert kept == [" ".join(words[:11]), "… ".join(words[4:])]
    assert dropped.counts == {"decontamination": 1}
    (example,) = dropped.examples["decontamination"]
    assert example.startswith("d0 (set.jsonl:2: THE, MILLER'S, OLD, GREY, DONKEY")
    assert dropped.notes == {"evaluation items found": {"set.jsonl:2": 1}}


def test_a_short_text_counts_where_it_occurs_whole(one_item):
    kept, dropped = passed(
        one_item,
        "Asked: which river did the GREY donkey cross at noon",
        "which river did the grey donkey cross at night",
        "which river did the grey donkey cross",
    )
    assert len(kept) == 2
    assert dropped.notes == {"evaluation items found": {"set.jsonl:1": 1}}
    assert not passed(one_item, SHORT, min_words=10)[1].counts


def test_a_match_never_spans_two_documents(one_item):
    words = ITEM.split()
    assert not passed(one_item, " ".join(words[:8]), " ".join(words[8:]))[1].counts
    words = SHORT.split()
    assert not passed(one_item, " ".join(words[:8]), " ".join(words[8:]))[1].counts


def test_only_the_words_in_common_are_removed(one_item):
    text = f"😀 Before! “{ITEM}” After 𝒜. {SHORT} End; {ITEM} {ITEM}"
    kept, dropped = passed(one_item, text, ITEM, "other", action="remove")
    assert kept == ["😀 Before! “.” After 𝒜. ? End; . .", "other"]
    assert dropped.examples == {"decontamination: nothing else in it": ["d1"]}
    assert dropped.notes["evaluation items found"]["set.jsonl:2"] == 2


def test_where_there_are_no_spaces_every_character_is_a_word(tmp_path):
    item = "磨坊主的老驴子中午驮着九袋大麦过桥"
    path = write(tmp_path / "set.jsonl", [{"t": item}])
    kept, _ = passed(path, f"昨天{item[2:]}了", f"昨天{item[:6]}了{item[6:]}了", "磨坊主的老驴子")
    assert kept == [f"昨天{item[:6]}了{item[6:]}了", "磨坊主的老驴子"]


def test_one_item_inside_another_is_removed_once(tmp_path):
    inner = " ".join(ITEM.split()[2:10])
    path = write(tmp_path / "set.jsonl", [{"t": ITEM}, {"t": inner}])
    assert passed(path, f"Before {ITEM} after", action="remove")[0] == ["Before . after"]


def test_words_are_removed_where_they_are_in_a_long_text(one_item, monkeypatch):
    hash_words(["the tables are made"])
    monkeypatch.setattr("data_pipelines.stages.word_hashes._PIECE", 128)
    filler = "Some words that no item has, again and again. " * 20
    kept, _ = passed(one_item, f"{filler}“{ITEM}” {filler}", action="remove")
    assert kept == [f"{filler}“.” {filler}"]


def test_a_template_counts_where_too_little_is_left_without_it(tmp_path):
    names = [f"name{number}" for number in range(30)]
    records = [{"q": f"Question: who wrote the {name}?\nAnswer in words:"} for name in names]
    path = write(tmp_path / "set.jsonl", records)
    _, dropped = passed(path, records[3]["q"], "who wrote the name4")
    assert dropped.notes["evaluation items found"] == {"set.jsonl:4": 1}


def test_words_of_a_template_are_no_part_of_an_ngram(tmp_path):
    rng = random.Random(0)
    items = [" ".join(f"w{rng.randrange(10**6)}" for _ in range(15)) for _ in range(30)]
    path = write(tmp_path / "set.jsonl", [{"q": f"Question: {i}. Answer:"} for i in items])
    words = items[0].split()
    edges = f"question {' '.join(words[:12])}", f"{' '.join(words[-12:])} answer"
    assert passed(path, *edges, " ".join(words[:13]))[0] == list(edges)


def test_what_all_texts_of_a_field_share_is_no_part_of_them(tmp_path):
    colours = ["red", "blue", "green", "black", "white", "grey", "brown", "pink", "amber", "tan"]
    questions = [
        f"{colours[n % 10]} {colours[n // 10]} birds eat what with a {colours[n % 9]} beak{n}"
        for n in range(40)
    ]
    path = write(
        tmp_path / "set.jsonl", [{"q": f"Question: {q}?\nAnswer in words:"} for q in questions]
    )
    kept, dropped = passed(path, questions[7], "question answer in words", questions[0])
    assert kept == ["question answer in words"]
    assert dropped.notes["evaluation items found"] == {"set.jsonl:8": 1, "set.jsonl:1": 1}


def test_what_many_items_share_is_their_template(tmp_path):
    words = ITEM.split()
    records = [{"t": f"{ITEM} {word}"} for word in words]
    path = write(tmp_path / "set.jsonl", records[:11])
    assert not passed(path, ITEM)[1].counts
    path = write(tmp_path / "set.jsonl", records[:10])
    assert passed(path, ITEM)[1].counts
    assert passed(path, ITEM, max_items=9)[1].counts == {}


def test_counting_is_no_item(tmp_path):
    path = write(tmp_path / "set.jsonl", [{"t": " ".join(map(str, range(20)))}])
    assert not passed(path, " ".join(map(str, range(20))))[1].counts


def naive(items, text, n):
    words = re.findall(r"\w+", text)
    grams = {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}
    found = set()
    for number, item in enumerate(items, 1):
        tokens = item.split()
        long = any(tuple(tokens[at : at + n]) in grams for at in range(len(tokens) - n + 1))
        short = 3 <= len(tokens) < n and f" {' '.join(tokens)} " in f" {' '.join(words)} "
        if long or short:
            found.add(f"set.jsonl:{number}")
    return found


def test_matches_are_those_of_the_definition_in_pieces_and_batches(tmp_path, monkeypatch):
    hash_words(["the tables are made"])
    monkeypatch.setattr("data_pipelines.stages.word_hashes._PIECE", 64)
    monkeypatch.setattr("data_pipelines.stages.batches._CHARACTERS", 300)
    rng = random.Random(0)
    vocabulary = ["a", "b", "cd", "efg", "hi", "jkl"]
    items = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 12))) for _ in range(15)]
    path = write(tmp_path / "set.jsonl", [{"t": item} for item in items])
    for _ in range(20):
        texts = [", ".join(rng.choices(vocabulary, k=rng.randint(0, 60))) for _ in range(6)]
        expected = {}
        for text in texts:
            for item in naive(items, text, 5):
                expected[item] = expected.get(item, 0) + 1
        _, dropped = passed(path, *texts, ngram=5, min_words=3)
        assert dropped.notes.get("evaluation items found", {}) == expected


def test_every_kind_of_file_gives_its_items(tmp_path):
    folder = tmp_path / "eval"
    (folder / "sub").mkdir(parents=True)
    texts = [f"{ITEM} {kind}" for kind in "abcd"]
    (folder / "a.txt.bz2").write_bytes(bz2.compress(f"\n{texts[0]}\n".encode()))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"t": texts[1]}) + "\n")
    table = pyarrow.table({"n": [1, 2], "inner": [{"t": ["x"]}, {"t": [texts[2], texts[3]]}]})
    pyarrow.parquet.write_table(table, folder / "sub" / "c.parquet")
    (folder / "README.md").write_text(ITEM)
    _, dropped = passed(str(folder), ITEM)
    assert dropped.notes["evaluation items found"] == {
        "a.txt.bz2:2": 1,
        "b.jsonl.gz:1": 1,
        "sub/c.parquet:2": 1,
    }


def test_a_changed_evaluation_file_is_another_filter(one_item):
    def opened():
        return open_filters([Decontamination(paths=(one_item,))])[0]

    before = opened().fingerprint()
    assert before == opened().fingerprint()
    Path(one_item).write_text(json.dumps({"t": ITEM.replace("grey", "brown")}) + "\n")
    assert opened().fingerprint() != before
    assert len(list(opened().keep([Document("d", ITEM)], Dropped()))) == 1


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n'),
        ("a.jsonl", b"[" * 100_000),
        ("a.txt", b"\xff\xfe"),
        ("a.txt.bz2", bz2.compress(b"x" * 99)[:-9]),
        ("a.jsonl.gz", b"no gzip"),
        ("a.parquet", b"PAR1"),
    ],
)
def test_a_damaged_evaluation_file_is_refused_by_name(tmp_path, name, contents):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=rf"decontamination\.paths: .*{name} cannot be read"):
        open_filters([Decontamination(paths=(str(tmp_path),))])


def test_configs_that_find_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file or folder"):
        open_filters([Decontamination(paths=(str(tmp_path / "no"),))])
    with pytest.raises(ValueError, match=r"has no \.jsonl"):
        open_filters([Decontamination(paths=(str(tmp_path),))])
    with pytest.raises(ValueError, match=r"decontamination\.paths is empty"):
        Decontamination(paths=())
    with pytest.raises(ValueError, match=r"ngram=5 must not be below .*min_words=8"):
        Decontamination(paths=("x",), ngram=5)
    with pytest.raises(ValueError, match=r"action='keep' must be one of drop, remove"):
        Decontamination(paths=("x",), action="keep")


def test_the_config_survives_json():
    config = Decontamination(paths=("a", "b"), action="remove")
    source = FilesSource(filters=(config,))
    assert from_json(to_json(source), FilesSource) == source


def test_an_empty_set_and_empty_documents_are_no_trouble(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    assert passed(str(tmp_path), "", ITEM, "?!")[0] == ["", ITEM, "?!"]
    assert passed(str(tmp_path))[0] == []


@pytest.mark.skipif(not EVAL.is_dir(), reason=f"{EVAL} is not here")
def test_real_items_are_found_without_their_prompt(tmp_path):
    path = EVAL / "world_knowledge__arc_easy.jsonl"
    items = [json.loads(line)["query"] for line in path.read_text().splitlines()]
    bare = [re.sub(r"^Question: |\nAnswer:$", "", item) for item in items[:500]]
    kept, _ = passed(str(path), *bare)
    # Those left are shorter than eight words.
    assert all(len(re.findall(r"[^\W_]+", text)) < 8 for text in kept)
    assert len(kept) < 100
