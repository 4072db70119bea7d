"""Small compiled programs, written by hand; `@70` stands for an estimate of 70 cycles."""

import re

MESH = {"replica": 2, "fsdp": 4}


def module(*computations: str) -> str:
    """A program of these computations."""
    estimate = r', backend_config={"window_config":{"estimated_cycles":"\1"}}'
    text = "\n\n".join(("HloModule jit_step, is_scheduled=true", *computations)) + "\n"
    return re.sub(r" @(\d+)$", estimate, text, flags=re.MULTILINE)


def computation(name: str, body: str, *, entry: bool = False) -> str:
    """One computation; signatures are for people, and left out."""
    lines = "\n".join(f"  {line.strip()}" for line in body.strip().splitlines())
    return f"{'ENTRY ' if entry else ''}%{name} () -> () {{\n{lines}\n}}"


def main(body: str) -> str:
    """The computation that a step runs."""
    return computation("main", body, entry=True)


# Two FLOPs for each of 8 * 16 * 4 multiply-adds.
MATMUL_FLOPS = 1024
MATMUL = computation(
    "matmul",
    """
    %p.0 = bf16[8,16]{1,0} parameter(0)
    %p.1 = bf16[16,4]{1,0} parameter(1)
    ROOT %convolution.1 = bf16[8,4]{1,0} convolution(%p.0, %p.1), dim_labels=bf_io->bf @70
    """,
)
STATE = "(s32[], bf16[8,16]{1,0}, bf16[16,4]{1,0})"


def loop(start: str = "constant(0)", step: str = "constant(1)", direction: str = "LT") -> str:
    """A loop of up to 12 matmuls, 100 cycles each."""
    return module(
        MATMUL,
        computation(
            "body",
            f"""
            %state = {STATE} parameter(0)
            %i = s32[] get-tuple-element(%state), index=0
            %x = bf16[8,16]{{1,0}} get-tuple-element(%state), index=1
            %w = bf16[16,4]{{1,0}} get-tuple-element(%state), index=2
            %step = s32[] {step}
            %next = s32[] add(%i, %step)
            %fusion.1 = bf16[8,4]{{1,0}} fusion(%x, %w), kind=kOutput, calls=%matmul @100
            ROOT %out = {STATE} tuple(%next, %x, %w)
            """,
        ),
        computation(
            "condition",
            f"""
            %state = {STATE} parameter(0)
            %i = s32[] get-tuple-element(%state), index=0
            %bound = s32[] constant(12)
            ROOT %less = pred[] compare(%i, %bound), direction={direction}
            """,
        ),
        main(
            f"""
            %x = bf16[8,16]{{1,0}} parameter(0)
            %w = bf16[16,4]{{1,0}} parameter(1)
            %start = s32[] {start}
            %first = {STATE} tuple(%start, %x, %w)
            ROOT %while.1 = {STATE} while(%first), condition=%condition, body=%body
            """
        ),
    )
