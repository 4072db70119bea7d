"""Prove on a recipe at reduced size that a run that is killed loses nothing."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from llama_jax.cli.recipe_args import parse_recipe
from llama_jax.config import RunConfig
from llama_jax.train.processes import hold_port

_DESCRIPTION = """Kills a run and starts it again, and compares it with one that was left alone.

The recipe is trained at reduced size (two narrow layers, tiny data that the command writes) on
simulated CPU devices, in processes of their own: straight; killed with SIGKILL and started again on
the same mesh, which must come to the same bits; and from the checkpoint on another mesh of half of
the devices, and on another with two processes, which must see the same tokens in the same order,
with losses within 1e-5. The exit code is 1 where one of them does not.

example: llama-jax doctor restart llama2_7b --json"""

_STEPS, _SAVE_EVERY, _KILLED_AT = 8, 3, 5
_DEVICES = 4
_TOLERANCE = 1e-5
_TIMEOUT_SECONDS = 7200
# Compiling takes most of the time, and all runs are compiled alike.
_COMPILE_QUICKLY = "--xla_backend_optimization_level=0"
# The process kills itself, so that the update is the one that was asked for however fast it is.
_KILLED = """
import os, pathlib, signal, sys, time
from llama_jax.train.ledger import Ledger

step, saved = int(sys.argv[1]), pathlib.Path(sys.argv[2])
really = Ledger.add

def add(self, done, metrics):
    really(self, done, metrics)
    while done == step:
        if saved.is_dir():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)

Ledger.add = add
from llama_jax.cli.main import main
sys.exit(main(sys.argv[3:]))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of the command beside the recipe's fields.

    Attributes:
        keep: Folder for the runs; by default they are deleted.
        json: Whether to print the verdict as one JSON document on stdout.
    """

    keep: Path | None = None
    json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison with the run that was left alone.

    Attributes:
        name: What was done to the run.
        resumed_at: Update after which it went on.
        passed: Whether what was asked of it holds.
        bit_identical: By what was hashed; empty where bits are not asked for.
        same_documents: Whether it saw the same documents in the same order, by its counter.
        same_token_order: Whether its devices were fed the same tokens in the same order.
        largest_loss_difference: Relative, over all updates after `resumed_at`.
        failure: What the run ended with where it did not get through.
    """

    name: str
    resumed_at: int
    passed: bool
    bit_identical: dict[str, bool] = dataclasses.field(default_factory=dict)
    same_documents: bool = False
    same_token_order: bool = False
    largest_loss_difference: float = float("nan")
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return f"FAILED  {self.name}: {self.failure}"
        same = [
            f"{what} {'the same' if ok else 'DIFFER'}" for what, ok in self.bit_identical.items()
        ]
        for what, ok in (("documents", self.same_documents), ("tokens", self.same_token_order)):
            same.append(f"{what} {'the same' if ok else 'DIFFER'}")
        same.append(f"losses within {self.largest_loss_difference:.1g}")
        verdict = "passed" if self.passed else "FAILED"
        return f"{verdict}  {self.name}, from update {self.resumed_at}: {', '.join(same)}"


def main(argv: list[str]) -> int:
    """Runs `llama-jax doctor restart`."""
    config, options = parse_recipe(
        argv, prog="llama-jax doctor restart", description=_DESCRIPTION, extra=Options
    )
    if options.keep is not None and options.keep.exists():
        raise ValueError(f"--keep={options.keep} exists; name a folder that does not.")
    with tempfile.TemporaryDirectory(prefix="llama_jax_restart_") as scratch:
        trial = _Trial(config, options.keep or Path(scratch))
        checks = trial.run(lambda text: print(text, file=sys.stderr))
        verdict = {
            "recipe": config.name,
            "passed": all(check.passed for check in checks),
            "updates": _STEPS,
            "killed_after": _KILLED_AT,
            "simulated_devices": _DEVICES,
            "straight": trial.expected,
            "checks": [dataclasses.asdict(check) for check in checks],
        }
    if options.json:
        print(json.dumps(verdict, indent=2))
    print(f"{config.name}: {'passed' if verdict['passed'] else 'FAILED'}", file=sys.stderr)
    return 0 if verdict["passed"] else 1


class _Trial:
    """Runs of one reduced recipe, below one folder."""

    def __init__(self, config: RunConfig, folder: Path):
        from llama_jax import recipe
        from llama_jax.train.trial import reduced, write_data

        self.folder = folder.absolute()
        write_data(self.folder / "data", config)
        small = reduced(config, self.folder / "data", num_steps=_STEPS, save_every=_SAVE_EVERY)
        self.recipe = self.folder / "recipe.json"
        self.recipe.write_text(recipe.to_json(small))
        self.expected: dict[str, str] = {}

    def run(self, say: Callable[[str], None]) -> list[Check]:
        """All checks, one after another."""
        from llama_jax.train.trial import fingerprints

        straight = self.folder / "straight"
        if failure := self._finish([self._start(straight)]):
            raise ValueError(f"The reduced recipe does not train: {failure}")
        self.expected = fingerprints(straight, _STEPS)
        say(f"straight: {_STEPS} updates on {_DEVICES} simulated devices")
        half = ("--mesh.fsdp", "1", "--mesh.tensor", "2")
        other = ("--mesh.fsdp", "2", "--mesh.tensor", "2")
        trials = {
            "killed and started again": self._kill,
            "half of the devices (tensor 2)": lambda run: self._go_on(run, [half], devices=2),
            "two processes (fsdp 2, tensor 2)": lambda run: self._go_on(run, [other, other]),
        }
        checks = []
        for name, trial in trials.items():
            run = self.folder / name.split(" (")[0].replace(" ", "_")
            failure = trial(run)
            checks.append(self._compare(name, run, failure, bits=trial == self._kill))
            say(str(checks[-1]))
        return checks

    def _kill(self, run: Path) -> str:
        """Trains, is killed, and goes on; returns what went wrong."""
        saved = run / f"checkpoints/{_SAVE_EVERY}"
        killed = self._start(run, code=(_KILLED, str(_KILLED_AT), str(saved)))
        _, told = killed.communicate(timeout=_TIMEOUT_SECONDS)
        if killed.returncode != -9:
            return f"was not killed but ended with {killed.returncode}: {_last_line(told)}"
        return self._finish([self._start(run)])

    def _go_on(self, run: Path, flags: list[tuple[str, ...]], *, devices: int = _DEVICES) -> str:
        """Goes on from a checkpoint of the straight run, with so many processes."""
        straight = self.folder / "straight"
        saved = f"checkpoints/{_SAVE_EVERY}"
        shutil.copytree(straight / saved, run / saved)
        shutil.copy(straight / "config.json", run)
        several: dict[str, str] = {}
        processes = []
        with hold_port() as held:
            for index, extra in enumerate(flags):
                if len(flags) > 1:
                    several = {
                        "LLAMA_JAX_COORDINATOR": f"127.0.0.1:{held.getsockname()[1]}",
                        "LLAMA_JAX_NUM_PROCESSES": str(len(flags)),
                        "LLAMA_JAX_PROCESS_ID": str(index),
                        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
                    }
                here = several | {"JAX_NUM_CPU_DEVICES": str(devices // len(flags))}
                processes.append(self._start(run, *extra, environment=here))
            return self._finish(processes)

    def _start(
        self,
        run: Path,
        *flags: str,
        code: tuple[str, ...] = (),
        environment: Mapping[str, str] = {},
    ) -> subprocess.Popen[str]:
        program = ("-c", *code) if code else ("-m", "llama_jax.cli.main")
        arguments = ("train", str(self.recipe), "--run-dir", str(run), *flags)
        return subprocess.Popen(  # noqa: S603 (ourselves)
            [sys.executable, *program, *arguments],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(_DEVICES),
                "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_COMPILE_QUICKLY}",
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _finish(processes: list[subprocess.Popen[str]]) -> str:
        """Waits for all; returns what went wrong, empty where nothing did."""
        failures = []
        for process in processes:
            _, told = process.communicate(timeout=_TIMEOUT_SECONDS)
            if process.returncode:
                failures.append(f"ended with {process.returncode}: {_last_line(told)}")
        return "; ".join(failures)

    def _compare(self, name: str, run: Path, failure: str, *, bits: bool) -> Check:
        from llama_jax.observe.goodput import NAME, read_starts
        from llama_jax.train.history import documents_seen
        from llama_jax.train.trial import fingerprints, losses

        resumed = read_starts(run / NAME)[-1].step if (run / NAME).is_file() else 0
        if failure:
            return Check(name=name, resumed_at=resumed, passed=False, failure=failure)
        straight = self.folder / "straight"
        expected, got = losses(straight), losses(run)
        difference = max(
            abs(got[step] - loss) / abs(loss) if step in got else float("inf")
            for step, loss in expected.items()
            if step > resumed
        )
        documents = [list(documents_seen(folder, _STEPS)) for folder in (straight, run)]
        same_documents = documents[0] == documents[1]
        ours = fingerprints(run, _STEPS)
        same = {what: ours[what] == theirs for what, theirs in self.expected.items()}
        same_token_order = same.pop("token order")
        identical = same if bits else {}
        went_on = 0 < resumed < _STEPS
        return Check(
            name=name,
            resumed_at=resumed,
            passed=went_on
            and same_documents
            and same_token_order
            and difference <= _TOLERANCE
            and all(identical.values()),
            bit_identical=identical,
            same_documents=same_documents,
            same_token_order=same_token_order,
            largest_loss_difference=difference,
        )


def _last_line(told: str) -> str:
    return told.strip().rpartition("\n")[2][:500]
