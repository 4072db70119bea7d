"""The command line refuses kindly, and answers before a person notices."""

import subprocess
import sys

import pytest

from llama_jax.cli.main import main


def test_an_unknown_command_is_refused_with_a_hint(capsys):
    assert main(["trian"]) == 2
    assert "Did you mean train?" in capsys.readouterr().err


def test_an_interrupted_command_leaves_no_traceback(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["data", "build", "demo"]) == 130
    assert capsys.readouterr().err == "llama-jax data: stopped.\n"


def test_a_bug_is_no_refusal(monkeypatch, capsys):
    """What a library raises, or Python, ends with its traceback and 1: not with 2, in a line."""

    class Command:
        main = staticmethod(lambda argv: int("many"))

    monkeypatch.setattr("importlib.import_module", lambda name: Command)
    with pytest.raises(ValueError, match="invalid literal"):
        main(["eval", "run"])
    assert not capsys.readouterr().err


def test_no_command_shows_help_and_is_wrong(capsys):
    assert main([]) == 2
    assert "usage: llama-jax COMMAND" in capsys.readouterr().out


def test_help_imports_neither_jax_nor_tyro():
    code = (
        "import sys\nfrom llama_jax.cli.main import main\nmain(['--help'])\n"
        "print(sorted({'jax', 'tyro', 'numpy', 'grain'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("--optimizer.peek-lr=1", "--optimizer.peak-lr"),
        ("--model.num-kv-heads=5", "must divide"),
        ("--train.num-steps=many", "--train.num-steps"),
    ],
)
def test_a_wrong_override_is_refused_with_what_was_meant(override, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "demo", override])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err
