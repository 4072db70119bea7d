"""Faults in what devices send to one another, and to their hosts."""

from collections.abc import Iterator

from llama_jax.aot.findings.case import WORTH_TELLING, Case, Finding, mesh_axes

_PLANE_AND_LINE = (
    "give mesh.fsdp a plane of the torus and mesh.fsdp_line the line across it, as --pod does"
)


def disguised_gathers(case: Case) -> Iterator[Finding]:
    reduces = [c for c in case.program.collectives if c.stands_for == "all-gather"]
    if reduces:
        seconds = case.seconds(reduces)
        yield Finding(
            severity="serious" if seconds > 0.1 * case.step_time.seconds else "costly",
            what="Gathers are done as all-reduces of buffers that are zero but for one part.",
            evidence=f"{sum(c.bytes for c in reduces) / 1e9:,.1f} GB in "
            f"{sum(c.count for c in reduces):,} launches; {seconds:.2f} s on the links, twice "
            "what an all-gather takes",
            fix=_PLANE_AND_LINE,
        )


def reduced_gradients(case: Case) -> Iterator[Finding]:
    reduces = [
        c
        for c in case.program.collectives
        if c.kind == "all-reduce"
        and case.data_axes.intersection(c.axes)
        and c.stands_for != "all-gather"
    ]
    moved = sum(c.bytes for c in reduces)
    if moved < 0.25 * case.gradient_bytes:
        return
    seconds = case.seconds(reduces)
    yield Finding(
        severity="serious" if seconds > 0.2 * case.step_time.seconds else "costly",
        what="Gradients are all-reduced where a reduce-scatter would do.",
        evidence=f"{moved / 1e9:,.1f} GB of all-reduce a step, in "
        f"{sum(c.count for c in reduces):,} launches, for {case.gradient_bytes / 1e9:,.1f} GB of "
        f"gradients; {seconds:.2f} s on the links, {case.share(seconds)}",
        fix=f"a reduce-scatter moves half: {_PLANE_AND_LINE}",
    )


def reduced_activations(case: Case) -> Iterator[Finding]:
    """Sums over devices that split a matmul, of which each of them keeps a part."""
    reduces = [
        c
        for c in case.program.collectives
        if c.kind == "all-reduce"
        and mesh_axes("mlp") & set(c.axes)
        and not case.data_axes & set(c.axes)
        and c.stands_for == "reduce-scatter"
    ]
    seconds = case.seconds(reduces)
    if seconds > WORTH_TELLING * case.step_time.seconds:
        yield Finding(
            severity="costly",
            what="Activations are all-reduced where a reduce-scatter would do.",
            evidence=f"{sum(c.bytes for c in reduces) / 1e9:,.1f} GB in "
            f"{sum(c.count for c in reduces):,} launches, of which each device reads a slice; "
            f"{seconds:.2f} s on the links, {case.share(seconds)}",
            fix="give mesh.tensor a line or a plane of the torus: the compiler has no "
            "reduce-scatter for three dimensions",
        )


def exposed(case: Case) -> Iterator[Finding]:
    for kind in ("all-gather", "reduce-scatter", "all-reduce", "all-to-all"):
        bare = [c for c in case.program.collectives if c.kind == kind and c.exposure == "exposed"]
        seconds = case.seconds(bare)
        if seconds < WORTH_TELLING * case.step_time.seconds:
            continue
        yield Finding(
            severity="serious" if seconds > 0.2 * case.step_time.seconds else "costly",
            what=f"The chips wait for {kind}s that nothing hides.",
            evidence=f"{sum(c.bytes for c in bare) / 1e9:,.1f} GB in "
            f"{sum(c.count for c in bare):,} launches over "
            f"{', '.join(sorted({axis for c in bare for axis in c.axes}))}; {seconds:.2f} s, "
            f"{case.share(seconds)}",
            fix="more rows a chip give computation to hide behind; or split fewer ways along "
            "that axis",
        )


def windowed_einsums(case: Case) -> Iterator[Finding]:
    # A ring of keys and values permutes too, along the axis that splits rows.
    steps = [
        c
        for c in case.program.collectives
        if c.kind == "collective-permute" and not mesh_axes("seq") & set(c.axes) and c.sent_bytes
    ]
    count, moved = sum(c.count for c in steps), sum(c.bytes for c in steps)
    if count >= case.config.model.num_layers and moved > 0.1 * case.gradient_bytes:
        yield Finding(
            severity="serious",
            what="Matmuls are cut into windows that wait for their neighbours (windowed einsums).",
            evidence=f"{count:,} collective-permutes of {moved / 1e9:,.1f} GB a step",
            fix="compile with xla_jf_spmd_threshold_for_windowed_einsum_mib above the largest "
            "weight",
        )


def bound_by_links(case: Case) -> Iterator[Finding]:
    time = case.step_time
    if time.host == time.seconds:
        return
    waits = time.seconds - time.compute - time.kernels - time.exposed - time.for_host
    if waits > WORTH_TELLING * time.seconds:
        yield Finding(
            severity="costly",
            what="There is more communication than computation to hide it.",
            evidence=f"{time.links:.2f} s on the links beside {time.compute + time.kernels:.2f} s "
            f"of computing; {waits:.2f} s of them are waited for, {case.share(waits)}",
            fix="more rows a chip, or fewer devices along fsdp and more along replica",
        )


def bound_by_host(case: Case) -> Iterator[Finding]:
    time = case.step_time
    waits = max(time.for_host, time.host - time.compute - time.kernels)
    if waits > WORTH_TELLING * time.seconds:
        moved = sum(one.bytes for one in case.program.transfers)
        yield Finding(
            severity="serious" if waits > 0.2 * time.seconds else "costly",
            what="The chips wait for the memory of the host.",
            evidence=f"{moved / 1e9:,.1f} GB to the host and back; {time.host:.2f} s one way at "
            f"{case.machine.pod.chip.host_bytes_per_second / 1e9:g} GB/s a chip, {waits:.2f} s of "
            f"them waited for, {case.share(waits)}",
            fix="a policy that saves less on the host, or computes it again: compute.remat=qkv or "
            "full",
        )
