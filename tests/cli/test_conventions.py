"""What all commands have in common: help with an example, and JSON for machines."""

import re

import pytest

from llama_jax.cli.main import COMMANDS, main

# Every command, with what must stand before `--help` to see all of its options.
LEAVES = {
    "train": ("demo",),
    "report": ("RUN",),
    "taint": ("RUN",),
    "eval": (),
    "generate": (),
    "tokenizer train": (),
    "tokenizer inspect": ("FILE",),
    "data build": ("demo",),
    "data inspect": ("DIR",),
    "data seen": ("RUN",),
    "data at-step": ("RUN", "1"),
    "data classifier train": (),
    "data sites": ("demo",),
    "convert to-hf": (),
    "convert from-hf": (),
    "convert check": (),
    "plan": (),
    "plan compare": (),
    "doctor": ("demo",),
    "scaling fit": ("RUNS.csv",),
    "scaling ladder": ("LADDER.py",),
    "scaling report": ("RUNS.csv",),
    "scaling coordinate-check": ("demo",),
    "scaling sweep": ("demo",),
}
WITHOUT_JSON = {
    "convert to-meta": "its facts are in the certificate that it writes",
    "convert from-meta": "the same",
    "convert from-llama2c": "prints what it wrote, and nothing else",
    "launch PLATFORM": "`launch status --json` tells of what was launched",
    "launch status": "tested with the runs that it tells of",
    "launch logs": "copies text",
    "launch stop": "`launch status --json` tells the rest",
    "launch resume": "the same",
}


def help_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main([*argv, "--help"]))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_command_gives_an_example_and_prints_json(leaf, capsys):
    page = help_of(capsys, *leaf.split(), *LEAVES[leaf])
    _, found, examples = re.sub(r"\s+", " ", page).partition(" example")
    assert found and f"llama-jax {leaf} " in examples, page
    assert "--json" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_a_front_page_gives_an_example_and_no_command_is_left_out_here(command, capsys):
    page = help_of(capsys, command)
    _, found, examples = page.partition("\nexample")
    assert found and re.search(rf"^ *(s?: *)?(.*\| )?llama-jax {command}\b", examples, re.M), page
    usage = page.partition("\n\n")[0]
    named = re.findall(rf"llama-jax {command}((?: [a-z][a-z0-9|-]*)*)", usage)
    names = {f"{command} {sub}".strip() for each in named for sub in each.strip().split("|")}
    if command == "convert":
        names = {
            f"convert {name}" for name in re.findall(r"^  ((?:to|from)-\w+|check) ", page, re.M)
        }
    assert names - {"launch"} <= LEAVES.keys() | WITHOUT_JSON.keys()
