"""Benchmarks start, and `make bench` names ones that are there; what they measure takes longer."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# One process for all: what they import, most of them import.
HELP = """
import contextlib, io, os, runpy, sys, traceback
for path in sys.argv[1:]:
    sys.argv, sys.path[0] = [path, "--help"], os.path.dirname(path)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as page:
            runpy.run_path(path, run_name="__main__")
        print(path, "did more than to explain itself")
    except SystemExit as end:
        if end.code or "usage" not in page.getvalue():
            print(path, "ended with", end.code, page.getvalue())
    except BaseException:
        print(path, traceback.format_exc())
"""


def test_every_benchmark_explains_itself():
    paths = sorted(map(str, (ROOT / "benchmarks").glob("*.py")))
    run = subprocess.run(
        [sys.executable, "-c", HELP, *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_make_bench_measures_what_is_there_the_step_and_the_loader_first():
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    names = listed.split()
    assert names[:2] == ["train_step", "loader"]
    assert all((ROOT / f"benchmarks/{name}.py").is_file() for name in names)
