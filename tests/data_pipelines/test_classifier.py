"""The quality classifier learns what tells two kinds of documents apart, and says how well."""

import hashlib
import html
import json
import math
import random

import numpy as np
import pytest

from data_pipelines.document import Document, Dropped
from data_pipelines.stages import classifier_training
from data_pipelines.stages.classifier import Model, features_of, read_model, write_model
from data_pipelines.stages.filters import open_filters
from data_pipelines.stages.word_hashes import hash_words, ngrams
from llama_jax.cli.main import main
from llama_jax.config import FilesSource, QualityClassifier
from llama_jax.recipe import from_json, to_json

GOOD = ["river", "history", "century", "bridge", "species", "language", "island", "theory"]
BAD = ["click", "buy", "login", "cart", "free", "now", "shop", "deal"]
BOTH = ["the", "of", "and", "to", "in", "is", "on", "for"]


def documents(words, count, seed, site=""):
    rng = random.Random(seed)
    for number in range(count):
        text = " ".join(rng.choices(words + BOTH * 3, k=60))
        yield Document(f"{seed}:{number}", text, f"http://{site}{number % 30}.org/" if site else "")


def chosen(documents, count, **options):
    choice = classifier_training.Choice(count, **options)
    for document in documents:
        choice.add(document)
    return choice.samples()


def trained(**given):
    options = {"num_features": 1 << 12, "inverse_penalty": 1e4} | given
    good = chosen(documents(GOOD, 120, 1), 1000)
    bad = chosen(documents(BAD, 150, 2, "site"), 1000)
    return classifier_training.train(good, bad, **options)


@pytest.fixture(scope="module")
def model():
    return trained()


def passed(model, path, texts, **config):
    if not path.exists():
        write_model(model, path)
    dropped = Dropped()
    (stage,) = open_filters([QualityClassifier(path=str(path), **config)])
    found = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    return [document.text for document in stage.keep(found, dropped)], dropped


def test_unseen_documents_of_both_kinds_are_told_apart(model):
    fresh = [[d.text for d in documents(words, 50, seed)] for words, seed in ((GOOD, 3), (BAD, 4))]
    assert np.mean(model.scores(fresh[0]) > 0.5) == np.mean(model.scores(fresh[1]) < 0.5) == 1
    measured = model.account["held_out"]
    assert measured["auc"] == measured["accuracy"] == 1
    assert measured["auc_interval"] == [1, 1]
    assert measured["documents"] > measured["groups"] > 20


def test_what_cannot_be_told_apart_is_said_to_be_a_coin_toss():
    good = chosen(documents(GOOD, 200, 1), 1000)
    bad = chosen(documents(GOOD, 200, 2), 1000)
    model = classifier_training.train(good, bad, num_features=1 << 12, inverse_penalty=1e4)
    low, high = model.account["held_out"]["auc_interval"]
    assert low < 0.5 < high
    assert low <= model.account["held_out"]["auc"] <= high
    assert high - low > 0.1


def test_the_area_under_the_curve_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, labels = rng.integers(9, size=200) / 9, rng.integers(2, size=200)
    ours = classifier_training.area_under_curve(scores, labels)
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_a_site_is_either_trained_on_or_held_out(monkeypatch):
    tested = {}
    monkeypatch.setattr(
        classifier_training, "_measure", lambda scores, labels, groups: tested.update(groups=groups)
    )
    trained()
    sites = [group for group in tested["groups"] if group.endswith(".org")]
    assert {site: sites.count(site) for site in sites} == dict.fromkeys(set(sites), 5)


def test_documents_that_are_no_pages_fall_by_themselves():
    articles = list(documents(GOOD, 60, 1, "wiki"))
    pages, others = (chosen(articles, 1000, are_pages=each) for each in (True, False))
    assert len({sample.group for sample in pages}) == 30
    assert {sample.group for sample in others} == {article.id for article in articles}


def test_a_score_is_the_logistic_function_of_the_mean_weight():
    weights = np.linspace(-3, 3, 1 << 10).astype(np.float32)
    model = Model(weights, -0.25, {})
    texts = ["One, two; three", "", "alone", "!?", "two three"]
    for text, score in zip(texts, model.scores(texts), strict=True):
        words = hash_words([text]).numbers
        features = [int(n) >> 54 for n in (*words, *ngrams(words, 2))]
        mean = np.mean(weights[features]) if features else -math.inf
        assert score == pytest.approx(1 / (1 + math.exp(0.25 - mean)) if features else 0)
        assert features_of([text], 1 << 10)[1][0] == len(features)


def test_only_the_beginning_of_a_long_document_counts(model, monkeypatch):
    monkeypatch.setattr("data_pipelines.stages.classifier._MAX_CHARACTERS", 100)
    text = next(documents(GOOD, 1, 5)).text
    other = text[:100] + " buy" * 1000
    assert model.scores([text])[0] == model.scores([other])[0]


def test_low_scores_are_dropped_with_their_value(model, tmp_path):
    texts = [next(documents(GOOD, 1, 5)).text, next(documents(BAD, 1, 6)).text, ""]
    kept, dropped = passed(model, tmp_path / "q.model", texts)
    assert kept == texts[:1]
    assert dropped.counts == {"quality classifier: score": 2}
    first, second = dropped.examples["quality classifier: score"]
    assert first.startswith("d1 (0.0") and first.endswith(", above 0.500)")
    assert second == "d2 (0.000, above 0.500)"
    assert dropped.notes["quality score"]["0.0"] == 2
    assert passed(model, tmp_path / "q.model", texts, keep_above=1.0)[0] == []


def test_a_score_at_the_limit_is_not_above_it(tmp_path):
    even = Model(np.zeros(2, np.float32), 0.0, {})
    assert passed(even, tmp_path / "q.model", ["a text"])[0] == []
    assert passed(even, tmp_path / "q.model", ["a text"], keep_above=0.49)[0] == ["a text"]


def test_a_pareto_sample_keeps_some_of_the_others_whatever_their_company(tmp_path):
    """P(Pareto > 1 - s) is (2 - s)^-alpha."""
    flat = Model(np.zeros(2, np.float32), math.log(0.6 / 0.4), {})
    texts = [f"text number {number}" for number in range(4000)]
    options = {"keep": "pareto", "pareto_alpha": 3.0}
    kept, dropped = passed(flat, tmp_path / "q.model", texts, **options)
    assert len(kept) / len(texts) == pytest.approx(1.4**-3, abs=0.02)
    assert set(passed(flat, tmp_path / "q.model", texts[::-7], **options)[0]) <= set(kept)
    assert dropped.counts["quality classifier: score"] == len(texts) - len(kept)


def test_training_does_not_depend_on_the_order_of_documents(tmp_path):
    there = list(documents(GOOD, 60, 1))
    assert chosen(there, 40) == chosen(there[::-1] * 2, 40)
    digests = sorted(hashlib.sha256(document.text.encode()).digest() for document in there)
    assert [sample.digest for sample in chosen(there, 40)] == digests[:40]


def test_too_few_documents_are_refused():
    few = chosen(documents(GOOD, 12, 1), 1000)
    with pytest.raises(ValueError, match=r"--good gives \d+ documents to measure with"):
        classifier_training.train(few, few, num_features=16, inverse_penalty=1.0)


def test_the_model_file_holds_numbers_and_its_account(model, tmp_path):
    write_model(model, tmp_path / "q.model")
    again = read_model(str(tmp_path / "q.model"))
    np.testing.assert_array_equal(again.weights, model.weights)
    assert again.bias == pytest.approx(model.bias, rel=1e-6)
    assert again.account == model.account
    assert len(again.account["training_data_sha256"]) == 64
    assert again.account["training_data_sha256"] == trained().account["training_data_sha256"]


def test_files_that_are_no_model_are_refused_by_name(model, tmp_path):
    path = tmp_path / "q.model"
    with pytest.raises(ValueError, match=r"quality_classifier\.path='no': there is no such file"):
        read_model("no")
    write_model(model, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-100], b"\x80\x04K\x01."):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or no safetensors file"):
            read_model(str(path))
    path.write_bytes(
        whole.replace(b"llama_jax quality classifier 1", b"llama_jax quality classifier 9")
    )
    with pytest.raises(ValueError, match="is no quality classifier"):
        read_model(str(path))
    write_model(model._replace(weights=np.full(3, np.nan, np.float32)), path)
    with pytest.raises(ValueError, match="weights that are no model"):
        read_model(str(path))


def test_another_model_is_another_filter(model, tmp_path):
    prints = set()
    for bias in (0.0, 1.0):
        write_model(model._replace(bias=bias), tmp_path / "q.model")
        (stage,) = open_filters([QualityClassifier(path=str(tmp_path / "q.model"))])
        prints.add(stage.fingerprint())
    assert len(prints) == 2


def test_the_config_survives_json_and_refuses_what_makes_no_sense():
    source = FilesSource(filters=(QualityClassifier(path="m", keep="pareto"),))
    assert from_json(to_json(source), FilesSource) == source
    with pytest.raises(ValueError, match=r"quality_classifier\.keep='some' must be one of above"):
        QualityClassifier(path="m", keep="some")
    with pytest.raises(ValueError, match=r"quality_classifier\.keep_above must be in \[0, 1\]"):
        QualityClassifier(path="m", keep_above=2)


def test_the_command_writes_a_model_that_the_filter_takes(tmp_path, capsys):
    for name, words, seed in (("good", GOOD, 1), ("bad", BAD, 2)):
        lines = (json.dumps({"text": document.text}) for document in documents(words, 120, seed))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    out = tmp_path / "models" / "q.model"
    command = ["data", "classifier", "train", "--good", str(tmp_path / "good.jsonl")]
    command += ["--bad", str(tmp_path / "bad.jsonl"), "--out", str(out), "--num-features", "4096"]
    assert main([*command, "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["held_out"]["auc"] == 1
    text = next(documents(GOOD, 1, 9)).text
    assert passed(None, out, [text, next(documents(BAD, 1, 9)).text])[0] == [text]
    assert main(command) == 2
    assert "exists; name a new file" in capsys.readouterr().err
    assert main(["data", "classifier", "tune"]) == 2


def test_pages_that_wikipedia_refers_to_are_the_good_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good, bad = (
        list(documents(*given)) for given in ((GOOD, 60, 1, "site"), (BAD, 90, 2, "other"))
    )
    pages = [
        {"text": page.text, "url": f"{page.url}{number}?a=1"}
        for number, page in enumerate(good + bad)
    ]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    links = [page["url"].replace("http://", "https://www.") for page in pages[: len(good)]]
    references = "".join(f"<ref>{{{{cite|url={link}#top|x=y}}}}</ref>" for link in links)
    (tmp_path / "wiki.xml").write_text(
        "<mediawiki><page><title>A</title><ns>0</ns><id>1</id><revision><text>"
        f"{html.escape(references)}</text></revision></page></mediawiki>"
    )
    command = ["data", "classifier", "train", "--json", "--num-features", "4096"]
    command += ["--good", f"wikipedia_references:{tmp_path / 'wiki.xml'}"]
    accounts = []
    for out in ("1", "2"):
        assert main([*command, "--bad", str(tmp_path / "pages.jsonl"), "--out", out]) == 0
        shown = capsys.readouterr()
        assert "60 of 150 pages are at one of 60 addresses" in shown.err
        accounts.append(json.loads(shown.out) | {"file": ""})
    assert accounts[0] == accounts[1]
    assert (accounts[0]["good_documents"], accounts[0]["bad_documents"]) == (60, 90)
    assert accounts[0]["held_out"]["auc"] == 1
    first, second = (read_model(str(tmp_path / out)) for out in ("1", "2"))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.bias == second.bias
    (tmp_path / "texts.txt").write_text("no address " * 40)
    assert main([*command, "--bad", str(tmp_path / "texts.txt"), "--out", "3"]) == 2
    assert "no document has an address (url)" in capsys.readouterr().err
