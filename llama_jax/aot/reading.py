"""What was read of a program, as JSON, so that nothing is compiled twice."""

import dataclasses
from typing import Any

from llama_jax.aot.collectives import Collective
from llama_jax.aot.costs import Cost
from llama_jax.aot.kernels import Kernel
from llama_jax.aot.program import Program
from llama_jax.aot.transfers import Transfer

_SINGLE = ("matmuls", "results", "work")


def encode_program(program: Program) -> dict[str, Any]:
    """All that the step-time model needs; single instructions are left out."""
    single: dict[str, Any] = dict.fromkeys(_SINGLE, ())
    encoded = dataclasses.asdict(dataclasses.replace(program, **single))
    for collective in encoded["collectives"]:
        del collective["where"], collective["name"]
    return {name: value for name, value in encoded.items() if name not in _SINGLE}


def decode_program(data: dict[str, Any]) -> Program:
    """Reads what `encode_program` wrote."""
    return Program(
        cycles=data["cycles"],
        matmul_flops=data["matmul_flops"],
        hbm_bytes=data["hbm_bytes"],
        kernels=tuple(Kernel(**kernel) for kernel in data["kernels"]),
        collectives=tuple(_collective(one) for one in data["collectives"]),
        transfers=tuple(
            Transfer(**one | {"overlap": Cost(**one["overlap"])})
            for one in data.get("transfers", ())
        ),
        matmuls=(),
        results=(),
        work=(),
        doubts=tuple(data["doubts"]),
    )


def _collective(data: dict[str, Any]) -> Collective:
    named = data | {"axes": tuple(data["axes"]), "overlap": Cost(**data["overlap"])}
    return Collective(where="", name="", **named)
