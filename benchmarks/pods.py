"""What the doctor says of our recipes on pods: each compiled once, its reading kept.

Command:  .venv-tpu/bin/python benchmarks/pods.py [--only TEXT] [--again] [--tables]
Prints:   one line a program, then the fit of the step-time model and its residuals.
Writes:   docs/pods/readings/*.json, and the tables in docs/pods/README.md and docs/step_time.md.

A reading that is there is not compiled again unless asked for, so a run that was stopped goes on.
`--tables` compiles nothing. Seventy billion parameters take minutes of two cores each.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.aot.calibration import (
    PUBLISHED_RUNS,
    PublishedRun,
    Sample,
    fit,
    generation_of,
    leave_one_out,
    leave_out,
    program_of,
)
from llama_jax.aot.machine import Machine
from llama_jax.aot.reading import decode_program
from llama_jax.aot.step_time import CALIBRATED, predict_step_time
from llama_jax.config.pod import PodSettings
from llama_jax.flops import count_params, train_flops_per_token
from llama_jax.hardware import parse_pod
from llama_jax.recipe import list_recipes, load_pods, load_recipe

DOCS = Path(__file__).parent.parent / "docs"
READINGS = DOCS / "pods" / "readings"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One program: a recipe on a pod."""

    recipe: str
    topology: str
    slices: int = 1
    rows: float
    seq_len: int = 4096
    overrides: tuple[str, ...] = ()
    by_table: bool = False
    """Whether mesh and remat are those of the recipe's own table of pods."""

    @property
    def name(self) -> str:
        """Of its reading."""
        parts = [self.recipe, self.topology.replace(":", "-"), f"x{self.slices}"]
        if self.by_table:
            return "_".join([*parts, "table"])
        parts += [f"{self.rows:g}x{self.seq_len}", *(self.overrides[1::2])]
        return "_".join(parts)

    @property
    def command(self) -> list[str]:
        """That compiles it."""
        slices = f"*{self.slices}" if self.slices > 1 else ""
        if self.by_table:
            return ["doctor", self.recipe, "--pod", self.topology + slices, "--json"]
        return [
            *("doctor", self.recipe, "--topology", self.topology, "--slices", f"{self.slices}"),
            *("--rows-per-chip", f"{self.rows:g}"),
            *("--data.seq-len", f"{self.seq_len}", *self.overrides, "--json"),
        ]


def of_published(run: PublishedRun) -> Case:
    """The program that stands for a published run."""
    return Case(
        recipe=run.recipe,
        topology=run.topology,
        rows=run.rows_per_chip,
        seq_len=run.seq_len,
        overrides=run.overrides,
    )


# Those that others' programs were compiled for too, then one recipe of each size on each kind.
_OURS = (
    Case(
        recipe="llama2_7b",
        topology="v5e:4x4",
        rows=4,
        overrides=("--compute.remat", "full", "--mesh.fsdp-line", "4"),
    ),
    Case(
        recipe="llama2_70b",
        topology="v5p:4x4x4",
        rows=2,
        overrides=("--compute.remat", "gate", "--mesh.fsdp-line", "4"),
    ),
    Case(
        recipe="llama2_70b",
        topology="v5e:16x16",
        rows=1,
        overrides=("--compute.remat", "full", "--mesh.fsdp-line", "16"),
    ),
)
# Grids that a recipe's table is tried on: the first whose slices hold what the table asks for, and
# of the larger models the second or a later one.
_GRIDS = {
    "v4": ("4x4x4", "4x4x8", "4x8x8", "8x8x16"),
    "v5e": ("8x8", "16x16"),
    "v5p": ("4x4x4", "4x4x8", "8x8x16"),
    "v6e": ("8x8", "16x16"),
    "tpu7x": ("2x4x4", "4x4x4", "4x8x8"),
}
_LARGER = 20e9


def grid_of(recipe: str, chip: str, settings: PodSettings) -> str:
    """Of a slice for a recipe by its table."""
    larger = count_params(load_recipe(recipe).model).total > _LARGER
    grids = _GRIDS[chip][larger:]
    holds = (grid for grid in grids if parse_pod(f"{chip}:{grid}").count >= settings.min_chips)
    return next(holds)


def by_tables() -> Iterator[Case]:
    """Every recipe that has a table, on every TPU in it: the recipe's own batch and context."""
    for recipe in list_recipes():
        for chip, settings in load_pods(recipe).items():
            if chip in _GRIDS:
                config = load_recipe(recipe)
                topology = f"{chip}:{grid_of(recipe, chip, settings)}"
                chips = parse_pod(topology).count * settings.stage
                yield Case(
                    recipe=recipe,
                    topology=topology,
                    slices=settings.stage,
                    rows=config.train.batch_size / chips,
                    seq_len=config.data.seq_len,
                    by_table=True,
                )


CASES = tuple(dict.fromkeys([*map(of_published, PUBLISHED_RUNS), *_OURS, *by_tables()]))


def compile_case(case: Case) -> None:
    """Runs the doctor and keeps what it answers, a refusal included."""
    command = [sys.executable, "-m", "llama_jax.cli.main", *case.command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    if not done.stdout:
        print(f"{case.name}: failed with {done.returncode}", file=sys.stderr)
        return
    answer = json.loads(done.stdout)
    before, taken = answer.get("seconds_before_compiling"), answer.get("compile_seconds")
    if taken:
        print(
            f"{before:.1f} s to the start of the compilation, {taken:.0f} s compiling", flush=True
        )
    answer["command"] = "llama-jax " + " ".join(case.command)
    READINGS.mkdir(parents=True, exist_ok=True)
    (READINGS / f"{case.name}.json").write_text(_compact(answer))


def _compact(answer: dict[str, Any]) -> str:
    """JSON with a line for each collective, so that a change of one shows as one."""
    collectives = answer.get("program", {}).pop("collectives", None)
    text = json.dumps(answer, indent=1)
    if collectives is None:
        return text + "\n"
    lines = ",\n   ".join(json.dumps(one) for one in collectives)
    return (
        text.replace('"program": {', f'"program": {{\n  "collectives": [\n   {lines}\n  ],') + "\n"
    )


def read(case: Case) -> dict[str, Any] | None:
    """What was kept of a case; None where nothing was."""
    path = READINGS / f"{case.name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def machine_of(answer: dict[str, Any]) -> Machine:
    """That a reading is of."""
    pod = parse_pod(f"{answer['chip']}:{answer['topology'] or answer['chips']}")
    return Machine(pod=pod, num_slices=answer["slices"], mesh_shape=answer["mesh"])


def samples() -> list[Sample]:
    """Published runs whose programs were compiled."""
    return [
        Sample(
            name=run.name,
            program=decode_program(answer["program"]),
            machine=machine_of(answer),
            seconds=run.seconds,
        )
        for run in PUBLISHED_RUNS
        if (answer := read(of_published(run))) and answer["fits"]
    ]


def _fit_table() -> Iterator[str]:
    found = samples()
    fitted = fit(found)
    errors = [
        [sample.error(fitted) for sample in found],
        leave_one_out(found),
        leave_out(found, program_of),
        leave_out(found, generation_of),
    ]
    yield (
        "| published run | published s | predicted s | error | the row left out | its program | "
        "its generation |"
    )
    yield "|---|---|---|---|---|---|---|"
    for sample, *told in zip(found, *errors, strict=True):
        cells = " | ".join(f"{error:+.1%}" for error in told)
        predicted = sample.seconds * (1 + told[0])
        yield f"| {sample.name} | {sample.seconds:.2f} | {predicted:.2f} | {cells} |"
    means = [sum(map(abs, column)) / len(column) for column in errors]
    yield "| mean absolute error | | | " + " | ".join(f"**{mean:.1%}**" for mean in means) + " |"
    yield ""
    yield (
        f"Fitted: cycles take {fitted.cycles:.2f} times their estimate; attention kernels reach "
        f"{fitted.kernels:.0%} of the peak."
    )
    if fitted != CALIBRATED:
        print(f"aot/step_time.py has {CALIBRATED}; the fit is {fitted}", file=sys.stderr)


def _pods_table() -> Iterator[str]:
    yield (
        "| recipe | pod | rows a chip | in pieces | remat | peak GiB of | G cycles | step s | "
        "tok/s/chip | MFU causal / full | chip-hours |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for case in CASES:
        answer = read(case)
        if answer is None:
            continue
        slices = f"{case.slices} x " if case.slices > 1 else ""
        pod = f"{slices}{case.topology}{'' if case.by_table else ', not by a table'}"
        row = f"| {case.recipe} | {pod} | {case.rows:g} x {case.seq_len} | "
        yield row + (_row(answer) if answer["fits"] else _refused(answer))
    missing = [f"{case.recipe} on {case.topology}" for case in by_tables() if read(case) is None]
    if missing:
        yield ""
        yield f"**In a recipe's table, and never compiled as it is there:** {'; '.join(missing)}."


def _row(answer: dict[str, Any]) -> str:
    machine = machine_of(answer)
    program = decode_program(answer["program"])
    seconds = predict_step_time(program, machine).seconds
    memory = answer["memory_bytes_per_device"]
    model = load_recipe(answer["recipe"]).model
    rate = answer["tokens_per_step"] / seconds / machine.num_chips
    mfu = [
        rate * train_flops_per_token(model, answer["seq_len"], kind) / machine.pod.chip.bf16_flops
        for kind in ("causal", "full")
    ]
    hours = answer["run"]["tokens"] / rate / 3600
    return (
        f"{answer.get('accumulation_steps', 1)} | {answer['remat']} | "
        f"{memory['peak'] / 2**30:.1f} of {memory['limit'] / 2**30:.0f} | "
        f"{program.cycles / 1e9:.2f} | {seconds:.2f} | {rate:,.0f} | "
        f"{mfu[0]:.1%} / {mfu[1]:.1%} | {hours:,.0f} |"
    )


def _refused(answer: dict[str, Any]) -> str:
    return f"| {answer.get('remat', '')} | does not fit: {answer['advice']} | | | | | |"


def write_table(path: Path, rows: Iterator[str]) -> None:
    """Puts rows between the two marks of a page."""
    begin, end = "<!-- generated by benchmarks/pods.py -->", "<!-- end -->"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    table = "\n".join(rows)
    path.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")


def main() -> None:
    """Compiles what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--again", action="store_true", help="compile what is there too")
    parser.add_argument("--tables", action="store_true", help="compile nothing")
    options = parser.parse_args()
    for case in CASES:
        if options.tables or options.only not in case.name:
            continue
        if options.again or read(case) is None:
            print(case.name, flush=True)
            compile_case(case)
    if samples():
        write_table(DOCS / "step_time.md", _fit_table())
    write_table(DOCS / "pods" / "README.md", _pods_table())


if __name__ == "__main__":
    main()
