"""What `plan` and `plan compare` are asked: a budget, a machine, laws."""

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llama_jax.scaling.machine import Machine
    from llama_jax.scaling.plan import Request

_GOALS = ("flops", "params", "target_loss", "days", "usd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Options that `plan` and `plan compare` share."""

    flops: float | None = None
    """Training FLOPs, counted as --flop-convention says."""
    params: float | None = None
    """Parameters; each law then says for how many tokens they are the best choice, or, with
    --serve-tokens, on how many tokens they are the cheapest of their loss."""
    target_loss: float | None = None
    """Nats per token to reach."""
    chips: str = ""
    """CHIP, CHIP:COUNT or CHIP:GRID, as in h100:64 or v5p:4x4x8. Alone it says what time and cost
    are counted on; with --days it is the budget. One H100 by default."""
    days: float | None = None
    """Wall clock on --chips."""
    usd: float | None = None
    """Money for training; needs --usd-per-chip-hour."""
    usd_per_chip_hour: float = 0.0
    """Your price; there is no default, for prices are by contract and region."""
    prefill_usd_per_chip_hour: float = 0.0
    """Price while reading prompts; that of training by default."""
    decode_usd_per_chip_hour: float = 0.0
    """Price while writing; that of training by default."""
    serve_tokens: float = 0.0
    """Tokens served over the model's life."""
    prompt_share: float = 0.0
    """Share of the served tokens that are read and not written."""
    unique_tokens: float = 0.0
    """Tokens that exist; beyond them tokens repeat. Those of --data by default."""
    law: tuple[str, ...] = ()
    """Laws to ask; the first one is the plan. All five by default."""
    train_mfu: float = 0.40
    """Model FLOPs over the bfloat16 peak while steps run. Assumed; LLaMA-3 had 38% to 43%."""
    prefill_mfu: float = 0.40
    """The same while reading prompts. Assumed."""
    decode_mfu: float = 0.05
    """The same while writing. Assumed; it depends on batch and context more than on anything."""
    goodput: float = 0.90
    """Share of the wall clock in which steps run. Assumed; LLaMA-3's run had over 90%."""
    serve_goodput: float = 0.90
    """Share of the wall clock in which serving chips read or write. Assumed."""
    flop_convention: Literal[
        "6ND", "non-embedding", "full-attention", "causal-attention", "appendix-f"
    ] = "6ND"
    """How --flops and MFU count training FLOPs, and with them --days, --usd, time and cost. Laws
    are asked in 6ND, by the ratio of the two in the nearest shape."""
    vocab_size: int = 0
    """Of the tokenizer; by default 32,000, or 8,192 below 400M parameters."""
    seq_len: int = 0
    """Tokens of a row; by default 4,096 from 1B parameters on, then 2,048, below 400M 1,024."""
    kv_heads: int = 0
    """Key/value heads that query heads share; by default 8 from 30B parameters on, as in LLaMA-2,
    and as many as heads below. LLaMA-3 has 8 at every size."""
    json: bool = False
    """Print one JSON document on stdout."""

    @property
    def goals(self) -> list[str]:
        """Which budgets, sizes or losses are given."""
        return [name for name in _GOALS if getattr(self, name) is not None]


def machine_of(options: Budget) -> "Machine":
    """What the work runs on."""
    from llama_jax.hardware import parse_pod
    from llama_jax.scaling.machine import Machine

    names = [field.name for field in dataclasses.fields(Machine)]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return Machine(pod=parse_pod(options.chips or "h100"), **given)


def request_of(options: Budget, machine: "Machine") -> "Request":
    """What is asked; FLOPs in 6ND, whatever convention a budget is counted in."""
    from llama_jax.scaling.plan import Goal, Request

    if options.days is not None and not options.chips:
        raise ValueError(f"--days={options.days} needs --chips: days on what?")
    if len(options.goals) != 1:
        told = " and ".join(_flag(name) for name in options.goals) or "none"
        raise ValueError(
            "Give exactly one of --flops, --params, --target-loss, --usd, or --days with --chips; "
            f"got {told}."
        )
    if not 0 <= options.prompt_share <= 1:
        raise ValueError(f"--prompt-share={options.prompt_share} must be in [0, 1].")
    given = options.goals[0]
    value = getattr(options, given)
    if not 0 < value < float("inf"):
        raise ValueError(f"{_flag(given)}={value} must be positive and finite.")
    goals: dict[str, Goal] = {"params": "params", "target_loss": "target_loss"}
    if given not in goals:
        counted = {"flops": float, "days": machine.flops_in, "usd": machine.flops_for}[given](value)
        value = counted / machine.counted
    return Request(
        goal=goals.get(given, "flops"),
        value=value,
        serve_input_tokens=options.serve_tokens * options.prompt_share,
        serve_output_tokens=options.serve_tokens * (1 - options.prompt_share),
        unique_tokens=options.unique_tokens,
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
