"""What is wrong with a compiled step: each fault with its numbers, and what to do about it."""

from collections.abc import Callable, Iterator

from llama_jax.aot.compile import MemoryUse
from llama_jax.aot.findings import communication, computation, memory
from llama_jax.aot.findings.case import Case, Finding, Severity
from llama_jax.aot.machine import Machine
from llama_jax.aot.program import Program
from llama_jax.aot.step_time import predict_step_time
from llama_jax.config import RunConfig

__all__ = ["Finding", "Severity", "find_faults"]

_RANK: dict[Severity, int] = {"serious": 0, "costly": 1, "note": 2}
_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    memory.replicated_state,
    memory.replicated_activations,
    communication.disguised_gathers,
    communication.reduced_gradients,
    communication.reduced_activations,
    communication.exposed,
    communication.windowed_einsums,
    computation.repeated_kernels,
    computation.copies,
    computation.extra_matmuls,
    computation.padding,
    computation.narrow_matmuls,
    memory.memory,
    communication.bound_by_links,
    communication.bound_by_host,
    computation.doubts,
)


def find_faults(
    config: RunConfig, machine: Machine, program: Program, memory: MemoryUse
) -> tuple[Finding, ...]:
    """All faults, the worst first."""
    case = Case(
        config=config,
        machine=machine,
        program=program,
        memory=memory,
        step_time=predict_step_time(program, machine),
    )
    found = [finding for rule in _RULES for finding in rule(case)]
    return tuple(sorted(found, key=lambda finding: _RANK[finding.severity]))
