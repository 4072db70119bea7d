"""A plan and the run that comes of it, from the options of the command line."""

import dataclasses
from collections.abc import Sequence

from llama_jax.cli.laws import read_laws
from llama_jax.cli.plan.options import Budget, machine_of, request_of
from llama_jax.scaling.laws import Law
from llama_jax.scaling.machine import Machine
from llama_jax.scaling.plan import Plan, Request, make_plan
from llama_jax.scaling.published import DEFAULT_LAWS
from llama_jax.scaling.realised import Realised, realise

# A budget in another convention than 6ND depends on the shape that it is spent on.
_MOST_ROUNDS, _SETTLED = 8, 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What is planned.

    Attributes:
        plan: By every law.
        real: The run of the first law's choice.
        machine: What it runs on.
        convention: In which budget and MFU are counted.
    """

    plan: Plan
    real: Realised
    machine: Machine
    convention: str

    @property
    def request(self) -> Request:
        """What was asked."""
        return self.plan.request


def make_answer(options: Budget) -> Answer:
    """Plans; where FLOPs are not counted as 6ND, as often as shape and budget change one another.

    Raises:
        ValueError: If the request is wrong, or nothing can be trained of it.
    """
    laws = read_laws(options.law or DEFAULT_LAWS)
    answer = _plan(options, laws, machine_of(options))
    for _ in range(_MOST_ROUNDS):
        if abs(_counted(answer) / answer.machine.counted - 1) < _SETTLED:
            break
        answer = _plan(options, laws, dataclasses.replace(answer.machine, counted=_counted(answer)))
    machine = dataclasses.replace(answer.machine, counted=_counted(answer))
    return dataclasses.replace(answer, machine=machine)


def _counted(answer: Answer) -> float:
    """FLOPs of the real run in the convention of its budget, over 6ND."""
    return answer.real.flops[answer.convention] / answer.real.flops["6ND"]


def _plan(options: Budget, laws: Sequence[Law], machine: Machine) -> Answer:
    request = request_of(options, machine)
    demand = machine.demand(request.serve_input_tokens, request.serve_output_tokens)
    plan = make_plan(request, laws, demand)
    chosen = plan.first.chosen.at
    try:
        real = realise(
            chosen,
            machine.pod,
            vocab_size=options.vocab_size,
            seq_len=options.seq_len,
            num_kv_heads=options.kv_heads,
            flops=chosen.flops * machine.counted if request.goal == "flops" else 0.0,
            convention=options.flop_convention,
        )
    except ValueError as refusal:
        remark = plan.first.chosen.remark
        why = f" {plan.first.law.about.name}: {remark}." if remark else ""
        raise ValueError(f"{refusal}{why}") from refusal
    return Answer(plan=plan, real=real, machine=machine, convention=options.flop_convention)
