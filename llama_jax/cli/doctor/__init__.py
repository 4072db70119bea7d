"""Compile a run for a pod that is not here, and say what it will do there."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llama_jax.cli.recipe_args import parse_recipe
from llama_jax.hardware import parse_pod
from llama_jax.pods import Slices, parse_slices

if TYPE_CHECKING:
    from llama_jax.aot.compile import DoesNotFit
    from llama_jax.cli.doctor.run import Request

_DESCRIPTION = """Compiles the training step for a pod, without the pod, and reads the program.

Says whether it fits and by how much; what a step costs in matmuls, kernels, memory traffic and
communication; how long it will take (a prediction, see docs/step_time.md); what the whole run
will take and cost; what is wrong with the program; and how the model differs from the published
one. The exit code is 2 where the run would fail.

It needs the compiler of the hardware, not the hardware: pip install 'llama-jax[tpu]' for TPUs,
'llama-jax[cuda]' for GPUs.

examples:
  llama-jax doctor llama2_7b --pod v5p:4x4x4
  llama-jax doctor llama2_70b --topology v5p:4x4x8 --slices 2 --usd-per-chip-hour 4.2
  llama-jax doctor llama3_8b --topology v5e:16x16 --rows-per-chip 1 --save-hlo step.hlo --json
  llama-jax doctor llama2_7b --topology v5e:4x4 --tune

`llama-jax doctor restart RECIPE` kills a small run of it and proves that nothing is lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of the command beside the recipe's fields.

    Attributes:
        pod: CHIP:GRID or CHIP:GRID*SLICES: mesh, remat and pieces of a batch as the recipe's table
            says for it, and --topology and --slices from it.
        topology: CHIP:GRID or CHIP:COUNT, as in v5p:4x4x8, h100:8 or h100:8x8.
        slices: Pods of that kind, joined by the data-centre network.
        rows_per_chip: Rows of a batch on each chip, computed at once, in place of the recipe's
            batch; may be a fraction.
        usd_per_chip_hour: Your price; there is no default, for prices are by contract and region.
        goodput: Share of the wall clock in which steps run. Assumed; LLaMA-3's run had over 90%.
        xla: Options of XLA and libtpu as NAME=VALUE, beside those that the run brings along.
        save_hlo: File for the compiled program's text.
        tune: Whether to search remat, rows and mesh for the fastest step that fits; it begins with
            --rows-per-chip, or one row a device.
        json: Whether to print one JSON document on stdout, in place of the page.
    """

    pod: str = ""
    topology: str = ""
    slices: int = 1
    rows_per_chip: float = 0.0
    usd_per_chip_hour: float = 0.0
    goodput: float = 0.9
    xla: tuple[str, ...] = ()
    save_hlo: Path | None = None
    tune: bool = False
    json: bool = False


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    started = time.monotonic()
    if argv[:1] == ["restart"]:
        from llama_jax.cli.doctor.restart import main as restart

        return restart(argv[1:])
    config, options = parse_recipe(
        argv, prog="llama-jax doctor", description=_DESCRIPTION, extra=Options
    )
    slices = _slices(options)
    from llama_jax.aot.topology import prepare_environment

    prepare_environment()
    from llama_jax.aot.compile import DoesNotFit
    from llama_jax.cli.doctor.run import Request, examine, plan_request

    request: Request = plan_request(
        config, slices.pod, num_slices=slices.count, rows_per_chip=options.rows_per_chip
    )
    mesh, asked = request.config.mesh, config.mesh
    if (mesh.replica, mesh.fsdp_line) != (asked.replica, asked.fsdp_line):
        from llama_jax.aot.splits import mesh_flags

        told = f"mesh: {mesh_flags(mesh)}, which `llama-jax train` must be told too"
        print(told, file=sys.stderr)
    if options.tune:
        from llama_jax.cli.doctor.tune import Price, tune

        return tune(
            request,
            rows=options.rows_per_chip or float(slices.pod.chip.devices_per_chip),
            options=_xla_options(options.xla),
            price=Price(usd_per_chip_hour=options.usd_per_chip_hour, goodput=options.goodput),
            as_json=options.json,
        )
    try:
        found = examine(
            request, started=started, options=_xla_options(options.xla), save_hlo=options.save_hlo
        )
    except DoesNotFit as failure:
        return _does_not_fit(request, failure, options)
    from llama_jax.cli.doctor.page import document, print_page

    if options.json:
        print(json.dumps(document(found, options.usd_per_chip_hour, options.goodput), indent=2))
    else:
        print_page(found, options.usd_per_chip_hour, options.goodput)
    return 0


def _slices(options: Options) -> Slices:
    if options.tune and options.save_hlo is not None:
        raise ValueError(
            f"--save-hlo={options.save_hlo} is of one program, and --tune compiles many: leave one "
            "of the two out."
        )
    if options.pod and (options.topology or options.slices != Options.slices):
        raise ValueError(
            f"--pod={options.pod} names topology and slices itself (v5e:16x16*4 for four): leave "
            "out --topology and --slices."
        )
    if not (options.topology or options.pod):
        raise ValueError("--topology is needed: CHIP:GRID or CHIP:COUNT (v5p:4x4x8, h100:8).")
    if options.slices < 1:
        raise ValueError(f"--slices={options.slices} must be 1 or more.")
    if options.rows_per_chip < 0:
        raise ValueError(f"--rows-per-chip={options.rows_per_chip} must be positive.")
    if not 0 < options.goodput <= 1:
        raise ValueError(f"--goodput={options.goodput} must be in (0, 1].")
    if options.pod:
        return parse_slices(options.pod, "--pod")
    return Slices(pod=parse_pod(options.topology, "--topology"), count=options.slices)


def _xla_options(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [option.partition("=") for option in given]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ValueError(f"--xla {name!r} must be NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _does_not_fit(request: "Request", failure: "DoesNotFit", options: Options) -> int:
    from llama_jax.aot.compile import TooLargeOnChip
    from llama_jax.aot.forecast import forecast_fit

    option = "--pod" if options.pod else "--topology"
    if isinstance(failure, TooLargeOnChip):
        advice = str(failure)
    else:
        config, machine = request.config, request.machine
        advice = forecast_fit(config, machine, failure.needed, failure.limit, option=option)
    if options.json:
        answer = {"fits": False, "needed_bytes": failure.needed, "limit_bytes": failure.limit}
        print(json.dumps(answer | {"advice": advice}, indent=2))
    print(f"llama-jax doctor: does not fit: {advice}", file=sys.stderr)
    return 2
