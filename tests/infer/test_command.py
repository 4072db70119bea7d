"""`llama-jax generate` on a run's folder."""

import io
import json

import pytest

from llama_jax.cli.main import main
from llama_jax.data.tokenizer import load_tokenizer
from tests.infer.saved_run import write_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("saved") / "run")


@pytest.fixture
def ask(run_dir, capfd, monkeypatch, tmp_path_factory):
    """Runs the command; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

    def ask(*arguments, run_dir=run_dir):
        code = main(["generate", str(run_dir), "--max-new-tokens", "8", *arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return ask


def document(answer) -> dict:
    code, out, _ = answer
    assert code == 0
    return json.loads(out)


def test_a_completion_is_printed_behind_its_prompt(ask):
    code, out, err = ask("--prompt", "def main(")
    (completion,) = document(ask("--prompt", "def main(", "--json"))["completions"]
    assert code == 0
    assert out == "def main(" + completion["text"] + "\n"
    assert "saved at step 10: first token after" in err


def test_text_and_tokens_are_the_same_thing(ask, run_dir):
    tokenizer = load_tokenizer(run_dir / "tokenizer.model")
    arguments = ("--prompt", "the", "--prompt", "", "--num-samples", "10", "--json")
    for completion in document(ask(*arguments))["completions"]:
        ids = [*tokenizer.encode(completion["prompt"], bos=True).tolist(), *completion["tokens"]]
        assert tokenizer.decode(ids) == completion["prompt"] + completion["text"]
        assert max(completion["tokens"]) < tokenizer.vocab_size


def test_samples_of_a_prompt_differ_and_do_not_depend_on_other_prompts(ask):
    samples = document(ask("--prompt", "fox", "--num-samples", "2", "--seed", "5", "--json"))
    first, second = samples["completions"]
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["tokens"] != second["tokens"]
    beside = document(ask("--prompt", "the", "--prompt", "fox", "--seed", "6", "--json"))
    assert [c["prompt"] for c in beside["completions"]] == ["the", "fox"]
    assert beside["completions"][1] == second


def test_a_prompt_can_come_from_stdin(ask, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the quick\n"))
    assert document(ask("--json"))["completions"][0]["prompt"] == "the quick"


def test_the_step_decides_the_parameters(ask):
    greedy = ("--prompt", "the lazy", "--json", "--seed", "1")
    newest, first = document(ask(*greedy)), document(ask(*greedy, "--step", "5"))
    assert (newest["step"], first["step"]) == (10, 5)
    assert newest["completions"] != first["completions"]


def test_a_model_split_over_devices_says_the_same(ask):
    arguments = ("--prompt", "the", "--prompt", "def main", "--json")
    split = document(ask(*arguments, "--tensor", "2"))
    assert split["completions"] == document(ask(*arguments))["completions"]


def test_a_stop_id_ends_a_completion(ask):
    free = document(ask("--prompt", "the", "--json"))["completions"][0]["tokens"]
    stopped = document(ask("--prompt", "the", "--json", "--stop-id", str(free[3])))
    assert stopped["completions"][0]["finish"] == "stop"
    assert stopped["completions"][0]["tokens"] == free[: free.index(free[3]) + 1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prompt", "the lazy dog " * 40], "tokens; model.max_seq_len=64 holds"),
        (["--prompt", "the", "--step", "7"], "--step=7: there is no such checkpoint; there are 5"),
        (["--prompt", "the", "--top-p", "0"], "sampling.top_p=0.0 must be in (0, 1]"),
        (["--prompt", "the", "--num-samples", "0"], "--num-samples=0 must be positive"),
        (["--prompt", "the", "--seed", "-1"], "--seed=-1 must be in [0, 2**32)"),
        (["--prompt", "the", "--tensor", "9"], "--tensor=9 must be in [1, 8]"),
    ],
)
def test_wrong_requests_are_refused_by_name(ask, arguments, complaint):
    code, out, err = ask(*arguments)
    assert code == 2
    assert out == ""
    assert complaint in err


def test_folders_of_no_run_are_refused(ask, tmp_path, run_dir):
    code, _, err = ask("--prompt", "the", run_dir=tmp_path)
    assert code == 2
    assert "has no config.json; name a folder that `llama-jax train` wrote" in err
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    code, _, err = ask("--prompt", "the", run_dir=tmp_path)
    assert code == 2
    assert "has no checkpoint yet" in err
