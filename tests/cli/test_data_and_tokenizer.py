"""`llama-jax data` and `llama-jax tokenizer`, as a person types them."""

import json

import pytest

from llama_jax.cli.main import main

TEXT = "It is a truth universally acknowledged, that {i} single men must be in want of a wife.\n"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(40):
        (folder / f"{i}.txt").write_text(TEXT.format(i=i) * (1 + i % 5))
    return folder


@pytest.fixture(scope="module")
def built(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "data"
    command = ["data", "build", "demo", "--out", str(out), "--input", str(texts)]
    command += ["--tokenizer.vocab-size", "320", "--held-out-fraction", "0.1"]
    assert main(command) == 0
    return command, out


def json_of(capsys, command):
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_build_tells_what_it_did_and_a_second_one_that_it_is_done(built, capsys):
    command, _ = built
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "already built" in captured.err
    assert "files train" in captured.out
    summary = json_of(capsys, command)
    assert sum(split["documents"] for split in summary["sources"]["files"]["splits"].values()) == 40


def test_inspect_shows_counts_documents_and_steps(built, capsys):
    _, out = built
    assert json_of(capsys, ["data", "inspect", str(out)])["tokenizer"]["vocab_size"] == 320
    shown = json_of(capsys, ["data", "inspect", str(out), "--document", "3"])
    number = int(shown["id"].removesuffix(".txt"))
    assert shown["text"] == TEXT.format(i=number) * (1 + number % 5)
    assert len(shown["pieces"]) == len(shown["tokens"])
    step = json_of(capsys, ["data", "inspect", str(out), "--step", "3", "--batch-size", "3"])
    assert (step["step"], step["first_sample"]) == (3, 6)  # the third update begins after two
    assert len(step["rows"]) == 3
    assert step["documents"][0]["id"].endswith(".txt")
    for arguments in ([], ["--document", "3"], ["--step", "2"]):
        assert main(["data", "inspect", str(out), *arguments]) == 0
        assert capsys.readouterr().out


def test_a_given_tokenizer_takes_the_place_of_the_recipes(built, texts, tmp_path, capsys):
    _, out = built
    given = ["--tokenizer-file", str(out / "tokenizer.model")]
    command = ["data", "build", "demo", "--out", str(tmp_path / "b"), "--input", str(texts), *given]
    assert json_of(capsys, command)["tokenizer"]["vocab_size"] == 320


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["build", "dmo", "--out", "x"], "Did you mean demo"),
        (["build", "demo", "--out", "OUT", "--input", "/nowhere"], "no such file or folder"),
        (["build", "demo", "--out", "OUT", "--shard-token", "3"], "--shard-tokens"),
        (["inspect", "OUT"], "has no build.json"),
        (["inspect", "BUILT", "--document", "400"], "files train has 0 to"),
        (["inspect", "BUILT", "--document", "0", "--source", "x"], "is none of files"),
        (["inspect", "BUILT", "--document", "0", "--split", "x"], "is none of train, heldout"),
        (["bild"], "There are: data build, data inspect"),
    ],
)
def test_wrong_requests_are_refused_with_what_would_be_right(
    built, tmp_path, capsys, arguments, complaint
):
    places = {"OUT": str(tmp_path / "out"), "BUILT": str(built[1])}
    try:
        status = main(["data", *(places.get(argument, argument) for argument in arguments)])
    except SystemExit as refused:
        status = refused.code
    assert status == 2
    assert complaint in capsys.readouterr().err


def test_a_tokenizer_is_trained_from_files_and_shown(texts, tmp_path, capsys):
    out = tmp_path / "my.model"
    command = ["tokenizer", "train", "--input", str(texts), "--out", str(out)]
    command += ["--vocab-size", "310"]
    assert json_of(capsys, command)["vocab_size"] == 310
    assert [path.name for path in tmp_path.iterdir()] == ["my.model"]
    shown = json_of(capsys, ["tokenizer", "inspect", str(out), "--text", "a wife ▁ 7"])
    assert shown["decoded"] == "a wife ▁ 7"
    assert shown["lossless"]
    assert main(command) == 2
    assert "exists; name a new file" in capsys.readouterr().err
    assert main(["tokenizer", "train", "--input", "nowhere", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("llama-jax: error: --input=nowhere: there is no such")
