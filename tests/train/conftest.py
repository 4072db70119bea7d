"""A small dataset, and `llama-jax` started as a person starts it, over a shared compile cache."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax import recipe
from llama_jax.atomic import write_atomically
from llama_jax.config import RunConfig
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.data.shard_writer import SplitWriter, write_manifest
from llama_jax.data.shards import BUILD, Manifest
from tests.train.tiny_run import COMPILE_QUICKLY

VOCAB_SIZE = 64
# Only so that what hangs ends; no test waits for it, and a loaded machine may take long.
PATIENCE_SECONDS = 1800
_HELD = """
import os
import time
from pathlib import Path
from llama_jax.recipe import from_json
from llama_jax.train.loop import _Run

hold = Path({hold!r})
if not hasattr(_Run, "at_once"):  # a recipe may be read twice
    _Run.at_once = _Run._update

def held(done):
    try:
        return done >= int(hold.read_text())
    except FileNotFoundError:
        return False

def update(self, done, state):
    waited, waits = 0.0, hold.with_name("waits_" + str(os.getpid()))
    while held(done) and waited < {seconds!r}:
        waits.touch()
        time.sleep(0.01)
        waited += 0.01
    waits.unlink(missing_ok=True)
    return _Run.at_once(self, done, state)

_Run._update = update

def config():
    return from_json(Path({config!r}).read_text())
"""


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory) -> Path:
    """Folder in which the commands of this session share compiled programs."""
    return tmp_path_factory.mktemp("xla")


def write_corpus(
    directory: Path,
    sources: Mapping[str, int],
    *,
    tokenizer: bytes = b"stands for a tokenizer",
    mixture: tuple[tuple[str, float], ...] = (),
) -> None:
    """Writes documents that count up or down, so that there is something to learn.

    Args:
        directory: Is made.
        sources: By name, what their documents count by. Documents of two sources or corpora are
            as many and as long.
        tokenizer: Contents of its file.
        mixture: That the corpus says it was built for.
    """
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.model").write_bytes(tokenizer)
    if mixture:
        built = {"sources": dict.fromkeys(sources), "config": {"mixture": mixture}}
        (directory / BUILD).write_text(json.dumps(built))
    rng = np.random.default_rng(0)
    for source, step in sources.items():
        folder = directory / source
        folder.mkdir()
        splits = {}
        for split, count in (("train", 400), ("heldout", 40)):
            writer = SplitWriter(folder, source, split, vocab_size=VOCAB_SIZE, shard_tokens=2000)
            for number in range(count):
                start, length = rng.integers(0, 61), rng.integers(4, 30)
                inner = 3 + (start + step * np.arange(length)) % 61
                tokens = np.array([1, *inner, 2])
                writer.add(f"{split}/{number}", tokens, text_bytes=2 * int(length))
            splits[split] = writer.close()
        manifest = Manifest(
            name=source,
            tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
            vocab_size=VOCAB_SIZE,
            splits=splits,
        )
        write_manifest(folder, manifest)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Two sources of documents."""
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory, {"up": 1, "down": -1})
    return directory


@pytest.fixture(scope="session")
def raw_texts(tmp_path_factory) -> Path:
    """Four files of documents that count, and a tokenizer."""
    root, rng, texts = tmp_path_factory.mktemp("texts"), random.Random(0), []
    (root / "raw").mkdir()
    for file in range(4):
        lines = []
        for _ in range(20):
            start = rng.randrange(80)
            numbers = range(start, start + rng.randrange(4, 12))
            texts.append(f"{len(texts)}: {' '.join(map(str, numbers))}")
            lines.append(json.dumps({"text": texts[-1]}) + "\n")
        (root / f"raw/{file}.jsonl").write_text("".join(lines))
    train_sentencepiece(texts, root / "small.model", vocab_size=271)
    return root


@dataclasses.dataclass(frozen=True)
class Command:
    """Starts `llama-jax` in processes of its own, with one CPU device."""

    folder: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes."""
        return os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": " ".join(f"--{k}={v}".lower() for k, v in COMPILE_QUICKLY.items()),
        }

    def start(self, *arguments: str | Path, log: Path | None = None) -> subprocess.Popen[str]:
        """Starts it and does not wait; what says more than a pipe holds needs a `log`."""
        with contextlib.ExitStack() as stack:
            return subprocess.Popen(
                [sys.executable, "-m", "llama_jax.cli.main", *map(str, arguments)],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")) if log else subprocess.PIPE,
                text=True,
            )

    def run(self, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Starts it, waits, and checks its exit code."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == expect, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def recipe(self, config: RunConfig, name: str = "recipe") -> Path:
        """Saves a config as a recipe."""
        path = self.folder / f"{name}.json"
        path.write_text(recipe.to_json(config))
        return path

    def held_recipe(self, config: RunConfig, seconds: float = 1e9) -> tuple[Path, "Hold"]:
        """A recipe whose run waits where a test says, so that what is done to it comes in time.

        Args:
            config: Of the run.
            seconds: How long each update waits at most.
        """
        hold, path = Hold(self.folder / "hold"), self.folder / "held.py"
        saved = str(self.recipe(config, "held"))
        path.write_text(_HELD.format(hold=str(hold.path), seconds=seconds, config=saved))
        return path, hold


@dataclasses.dataclass(frozen=True)
class Hold:
    """Where runs of a held recipe wait; an update is reported two later."""

    path: Path

    def after(self, done: int) -> None:
        """Has runs wait when they have made so many updates, as long as `path` is there."""
        write_atomically(self.path, str(done))

    def release(self) -> None:
        """Lets runs go on."""
        self.path.unlink()

    def has_waiting(self, pid: int) -> bool:
        """Whether a process waits."""
        return self.path.with_name(f"waits_{pid}").exists()


@pytest.fixture
def llama_jax(tmp_path: Path, compile_cache: Path) -> Command:
    """The command, in a folder of the test's own."""
    return Command(tmp_path, compile_cache)


@pytest.fixture(autouse=True)
def compiles_once(compile_cache: Path):
    """Has this process use the shared cache too."""
    settings = {
        "jax_compilation_cache_dir": str(compile_cache),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
