"""What the doctor found: a page for people, a document for programs."""

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_jax.aot.collectives import Collective
from llama_jax.aot.findings import Severity
from llama_jax.aot.hand_count import matmul_flops_of_model
from llama_jax.aot.program import Program
from llama_jax.aot.reading import encode_program
from llama_jax.aot.step_time import collective_seconds
from llama_jax.cli.doctor.run import Examination, Request
from llama_jax.units import human_count

_GIB = 1 << 30
_WIDTH = 100
_BAR = 36
_LOOK: dict[Severity, tuple[str, str]] = {
    "serious": ("●", "bold red"),
    "costly": ("●", "yellow"),
    "note": ("·", "dim"),
}


def print_page(found: Examination, usd_per_chip_hour: float, goodput: float) -> None:
    """Prints the answer on stdout."""
    console = Console(highlight=False)
    # A file or a pipe has no width of its own.
    console.width = min(_WIDTH, console.width) if console.is_terminal else _WIDTH
    for part in (
        _title(found),
        _memory(found),
        _time(found),
        _work(found),
        _communication(found),
        _budget(found, usd_per_chip_hour, goodput),
        _findings(found),
        _comparison(found),
    ):
        console.print(part)
        console.print()


def describe(request: Request) -> str:
    """A run on a pod in one line."""
    machine, config = request.machine, request.config
    slices = f"{machine.num_slices} x " if machine.num_slices > 1 else ""
    pod = machine.pod
    return (
        f"{config.name} on {slices}{pod.chip.name}:{pod.topology or pod.count}, "
        f"{machine.num_chips:,} chips, "
        f"{request.rows_per_chip:g} x {config.data.seq_len:,} tokens a chip"
    )


def _title(found: Examination) -> Text:
    config, machine = found.request.config, found.request.machine
    axes = " x ".join(f"{name} {size}" for name, size in machine.mesh_shape.items() if size > 1)
    pieces = config.train.accumulation_steps
    facts = [
        f"mesh {axes or 'of one device'}",
        f"remat {config.compute.remat}",
        f"{found.request.tokens_per_step:,} tokens a step"
        + (f" in {pieces} pieces" if pieces > 1 else ""),
        f"compiled in {found.compile_seconds:,.0f} s",
    ]
    return Text.assemble((describe(found.request), "bold"), "\n", (" · ".join(facts), "dim"))


def _memory(found: Examination) -> Text:
    memory, machine = found.memory, found.request.machine
    limit = machine.device_memory
    whole = machine.devices_per_chip == 1
    others = memory.peak - memory.arguments
    not_at_once = ", not all live at once" if memory.temporaries > others else ""
    host = f"{memory.host / _GIB:,.2f} GiB for each {'chip' if whole else 'device'}"
    of_host = [("host's memory", host)] if memory.host else []
    return _section(
        f"Fits: {memory.peak / _GIB:,.1f} of {limit / _GIB:,.1f} GiB on each "
        f"{'chip' if whole else 'device'}, {(limit - memory.peak) / _GIB:,.1f} to spare",
        ("state and batch", _bar(memory.arguments, limit), _gib(memory.arguments)),
        ("all else at the peak", _bar(others, limit), _gib(others)),
        ("temporaries", f"{memory.temporaries / _GIB:,.2f} GiB laid out{not_at_once}"),
        *of_host,
        ("checkpoint", f"{found.request.state_bytes / 1e9:,.1f} GB over all chips"),
    )


def _time(found: Examination) -> Text:
    time = found.step_time
    waits = time.seconds - time.compute - time.kernels
    # Where one of the two is the bound of the step, it is what the rest is waited for.
    for_host = waits if time.host == time.seconds else time.for_host
    rows: list[tuple[str | Text, ...]] = [
        (name, _bar(seconds, time.seconds), f"{seconds:8.3f} s {seconds / time.seconds:5.0%}")
        for name, seconds in (
            ("compute", time.compute),
            ("attention", time.kernels),
            ("waiting for links", waits - for_host),
            ("waiting for the host", for_host),
        )
        if seconds or "host" not in name
    ]
    for name, seconds in (("links in use", time.links), ("host's link in use", time.host)):
        if seconds:
            bar = _bar(seconds, time.seconds, "cyan")
            rows.append((name, bar, f"{seconds:8.3f} s in all, hidden or not"))
    return _section(
        f"Step: {time.seconds:.3g} s (a prediction)",
        ("speed", f"{found.throughput.tokens_per_second_per_chip:,.0f} tokens/s/chip"),
        ("MFU", str(found.throughput).partition(" MFU ")[2]),
        *rows,
    )


def _work(found: Examination) -> Text:
    program, request = found.program, found.request
    model = matmul_flops_of_model(request.config, program.kernels)
    ratio = program.matmul_flops / (model / request.mesh.size)
    rows: list[tuple[str | Text, ...]] = [
        ("matmuls", f"{program.matmul_flops:.4g} FLOPs, {ratio:.2f} times the model's own")
    ]
    rows += [
        (
            "kernel" if number == 0 else "",
            f"{kernel.name.replace('_', ' ')}: {kernel.launches:,} x, {kernel.flops:.3g} FLOPs",
        )
        for number, kernel in enumerate(program.kernels)
    ]
    rows.append(("memory traffic", f"{program.hbm_bytes / 1e9:,.0f} GB"))
    for direction in dict.fromkeys(one.direction for one in program.transfers):
        sent = [one for one in program.transfers if one.direction == direction]
        moved, launches = sum(one.bytes for one in sent), sum(one.count for one in sent)
        rows.append((direction, f"{moved / 1e9:,.2f} GB in {launches:,} launches"))
    if program.cycles:
        rows.append(("cycles estimated", f"{program.cycles / 1e9:,.2f} G{_shares(program)}"))
    return _section("Work of each device", *rows)


def _shares(program: Program) -> str:
    """What takes the cycles."""
    matmuls = sum(one.cost.cycles for one in program.work if one.cost.matmul_flops)
    copies = sum(one.cost.cycles for one in program.work if one.opcode == "copy")
    rest = program.cycles - matmuls - copies
    told = (("matmuls", matmuls), ("copies", copies), ("the rest", rest))
    shares = [f"{cycles / program.cycles:.0%} {name}" for name, cycles in told]
    return f": {', '.join(shares)}" if program.work else ""


def _communication(found: Examination) -> Table | Text:
    groups = grouped(found.program.collectives)
    if not groups:
        return Text("Nothing is communicated.", style="dim")
    table = Table(
        title="Communication of each device",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("", no_wrap=True)
    table.add_column("along", no_wrap=True)
    for name in ("launches", "GB out", "s on links"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for group in sorted(groups, key=lambda group: -group.sent_bytes):
        seconds = collective_seconds(group, found.request.machine)
        color = "yellow" if group.exposure == "exposed" else "green"
        table.add_row(
            f"{group.kind} for {group.stands_for}" if group.stands_for else group.kind,
            " ".join(group.axes),
            f"{group.count:,}",
            f"{group.bytes / 1e9:,.2f}",
            f"{seconds:.3f}",
            Text(group.exposure, style=color),
        )
    return table


def grouped(collectives: Iterable[Collective]) -> list[Collective]:
    """Collectives of one kind, axis and exposure as one."""
    groups: dict[tuple[Any, ...], Collective] = {}
    for one in collectives:
        key = (one.kind, one.stands_for, one.axes, one.exposure)
        have = groups.get(key)
        groups[key] = (
            one
            if have is None
            else dataclasses.replace(
                have, bytes=have.bytes + one.bytes, count=have.count + one.count
            )
        )
    return list(groups.values())


def _budget(found: Examination, usd_per_chip_hour: float, goodput: float) -> Text:
    cost = _cost(found, usd_per_chip_hour, goodput)
    told = (
        f"{human_count(found.request.tokens)} tokens: {cost['days']:,.1f} days at a goodput of "
        f"{goodput:.0%}, {cost['chip_hours']:,.0f} chip-hours"
    )
    if cost["usd"] is not None:
        told += f", ${cost['usd']:,.0f}"
    return Text.assemble(("Whole run  ", "bold"), told)


def _cost(found: Examination, usd_per_chip_hour: float, goodput: float) -> dict[str, Any]:
    chips = found.request.machine.num_chips
    rate = found.throughput.tokens_per_second_per_chip * chips * goodput
    hours = found.request.tokens / rate / 3600
    return {
        "tokens": found.request.tokens,
        "goodput": goodput,
        "days": hours / 24,
        "chip_hours": hours * chips,
        "usd": hours * chips * usd_per_chip_hour or None,
    }


def _findings(found: Examination) -> Text:
    if not found.findings:
        return Text.assemble(("Findings  ", "bold"), ("none", "green"))
    text = Text("Findings", style="bold")
    for finding in found.findings:
        mark, style = _LOOK[finding.severity]
        text.append(f"\n{_wrapped(f'{mark} ', finding.what)}", style=f"not bold {style}")
        text.append(f"\n{_wrapped('  ', finding.evidence)}", style="not bold")
        text.append(f"\n{_wrapped('  -> ', finding.fix)}", style="not bold dim")
    return text


def _comparison(found: Examination) -> Text:
    comparison = found.comparison
    if comparison is None:
        return Text("No published model has nearly these sizes.", style="dim")
    if not comparison.differences:
        text = Text.assemble((f"Beside {comparison.name}  ", "bold"), ("the same", "green"))
    else:
        text = Text(f"Nearly {comparison.name}, but published -> yours:", style="bold red")
        for line in comparison.differences:
            text.append(f"\n! model.{line}", style="red")
    for line in comparison.choices:
        text.append(f"\n  model.{line} (a choice)", style="not bold dim")
    return text


def _section(title: str, *rows: tuple[str | Text, ...]) -> Text:
    text = Text(title, style="bold")
    for label, *cells in rows:
        text.append(f"\n  {label:<21}", style="not bold cyan")
        for cell in cells:
            text.append_text(cell if isinstance(cell, Text) else Text(f" {cell}", style="not bold"))
    return text


def _bar(part: float, whole: float, color: str = "blue") -> Text:
    filled = max(0, min(_BAR, round(_BAR * part / whole)))
    return Text.assemble(
        " ", ("█" * filled, f"not bold {color}"), ("░" * (_BAR - filled), "not bold dim")
    )


def _gib(count: float) -> str:
    return f"{count / _GIB:8.2f} GiB"


def _wrapped(lead: str, words: str) -> str:
    return textwrap.fill(words, _WIDTH - 2, initial_indent=lead, subsequent_indent=" " * len(lead))


def document(found: Examination, usd_per_chip_hour: float, goodput: float) -> dict[str, Any]:
    """The same for programs."""
    request, program, time = found.request, found.program, found.step_time
    machine = request.machine
    return {
        "recipe": request.config.name,
        "chip": machine.pod.chip.name,
        "topology": machine.pod.topology,
        "slices": machine.num_slices,
        "chips": machine.num_chips,
        "mesh": dict(machine.mesh_shape),
        "remat": request.config.compute.remat,
        "seq_len": request.config.data.seq_len,
        "rows_per_chip": request.rows_per_chip,
        "tokens_per_step": request.tokens_per_step,
        "accumulation_steps": request.config.train.accumulation_steps,
        "fits": True,
        "memory_bytes_per_device": dataclasses.asdict(found.memory)
        | {"limit": machine.device_memory},
        "checkpoint_bytes": request.state_bytes,
        "seconds_before_compiling": found.seconds_before_compiling,
        "compile_seconds": found.compile_seconds,
        "program": encode_program(program),
        "predicted": {
            "step_seconds": time.seconds,
            "compute_seconds": time.compute,
            "kernel_seconds": time.kernels,
            "exposed_seconds": time.exposed,
            "late_seconds": time.late,
            "link_seconds": time.links,
            "host_wait_seconds": time.for_host,
            "host_seconds": time.host,
        }
        | found.throughput.metrics(),
        "run": _cost(found, usd_per_chip_hour, goodput),
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "reference": found.comparison and dataclasses.asdict(found.comparison),
    }
