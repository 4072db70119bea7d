"""Faults in what a device computes."""

import math
from collections.abc import Iterator

from llama_jax.aot.findings.case import WORTH_TELLING, Case, Finding
from llama_jax.aot.hand_count import matmul_flops_of_model

_WIDE_MATRIX_UNITS = ("v6e", "tpu7x")  # 256 x 256; those before had 128 x 128


def repeated_kernels(case: Case) -> Iterator[Finding]:
    wanted = case.config.model.num_layers * case.config.train.accumulation_steps
    ours = [kernel for kernel in case.program.kernels if "fwd" in kernel.name]
    library = [
        kernel
        for kernel in case.program.kernels
        if "fmha" in kernel.name and "Backward" not in kernel.name
    ]
    launches = sum(kernel.launches for kernel in (*ours, *library))
    if wanted and launches > wanted:
        yield Finding(
            severity="costly",
            what="The forward attention kernel runs more than once a layer.",
            evidence=f"{launches:,} launches for {wanted:,} layers",
            fix="compute.remat=none, where it fits: JAX gives what cuDNN keeps for the backward "
            "pass no name by which another policy could save it"
            if library
            else "a remat policy that saves the kernel's output and its log-sum-exp "
            "(compute.remat=attention)",
        )


def copies(case: Case) -> Iterator[Finding]:
    copies = [one for one in case.program.work if one.opcode == "copy"]
    cycles = sum(one.cost.cycles for one in copies)
    if copies and cycles > WORTH_TELLING * case.program.cycles:
        worst = max(copies, key=lambda one: one.cost.cycles)
        yield Finding(
            severity="costly",
            what="Arrays are copied to change their layout.",
            evidence=f"{cycles / case.program.cycles:.0%} of the cycles; most in {worst.count:,} x "
            f"{worst.name}, of {worst.where or 'no known origin'}",
            fix="write the einsum around it with its axes in the order of its operands",
        )


def extra_matmuls(case: Case) -> Iterator[Finding]:
    devices = math.prod(case.machine.mesh_shape.values())
    model = matmul_flops_of_model(case.config, case.program.kernels) / devices
    ratio = case.program.matmul_flops / model
    if ratio > 1.4:
        yield Finding(
            severity="serious",
            what="Matmuls do more work than recomputation explains.",
            evidence=f"{case.program.matmul_flops:.3g} FLOPs on each device, {ratio:.2f} times "
            "the model's; recomputing every block makes 1.33",
            fix="look for a matmul whose operands are replicated along an axis of the mesh",
        )
    elif ratio > 1 + WORTH_TELLING:
        yield Finding(
            severity="note",
            what="Matmuls are computed again in the backward pass.",
            evidence=f"{ratio:.2f} times the model's FLOPs under "
            f"compute.remat={case.config.compute.remat}",
            fix="a policy that saves more, where the memory is there",
        )


def padding(case: Case) -> Iterator[Finding]:
    """What matrix units do for the rest of a tile that no element fills."""
    matmuls = case.program.matmuls
    flops = sum(one.flops for one in matmuls)
    if not (flops and case.machine.pod.sides):
        return
    unit = _unit(case)
    waste = {one: one.padded(unit) - one.flops for one in matmuls}
    share = sum(waste.values()) / flops
    if share > WORTH_TELLING:
        worst = max(matmuls, key=lambda one: waste[one])
        yield Finding(
            severity="costly" if share > 0.1 else "note",
            what="Matmuls are padded to fill the matrix units.",
            evidence=f"{share:.1%} on top of all matmul FLOPs; most where sums of "
            f"{worst.contracted:,} make {worst.features:,} features of {worst.where or 'a matmul'}",
            fix=f"sizes on a device that are multiples of {unit}: another width, or fewer devices "
            "along mesh.tensor",
        )


def _unit(case: Case) -> int:
    return 256 if case.machine.pod.chip.name in _WIDE_MATRIX_UNITS else 128


def narrow_matmuls(case: Case) -> Iterator[Finding]:
    model, tensor = case.config.model, case.tensor_shards
    chip = case.machine.pod.chip.name
    if not case.machine.pod.sides:
        return
    unit = _unit(case)
    sizes = {
        "model.embed_dim": model.embed_dim,
        "model.mlp_dim": model.mlp_dim // tensor,
        "model.vocab_size": model.vocab_size // tensor,
        "model.num_heads * head_dim": model.num_heads * model.head_dim // tensor,
    }
    for name, size in sizes.items():
        padded = math.ceil(size / unit) * unit
        if padded > 1.01 * size:
            yield Finding(
                severity="note",
                what=f"{name} does not fill the matrix units of {chip}.",
                evidence=f"{size} on each device is computed as {padded}: "
                f"{padded / size - 1:.1%} of padding",
                fix=f"a multiple of {unit * tensor}, or mesh.tensor=1",
            )
    if model.head_dim < 128:
        yield Finding(
            severity="note",
            what="Heads are narrower than the matrix units.",
            evidence=f"model.head_dim={model.head_dim} is computed as 128 inside attention",
            fix="fewer, wider heads, where the shape is yours to choose",
        )


def doubts(case: Case) -> Iterator[Finding]:
    for doubt in case.program.doubts:
        yield Finding(
            severity="note",
            what="A part of the program could not be read.",
            evidence=doubt,
            fix="--save-hlo FILE keeps the text for a look",
        )
