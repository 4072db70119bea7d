"""The run that a plan comes to, as a table for people."""

from typing import Any

from llama_jax.cli.plan.answer import Answer
from llama_jax.cli.plan.corpus import Corpus
from llama_jax.cli.plan.cost import cost_of
from llama_jax.cli.plan.document import real_loss
from llama_jax.cli.plan.marks import Marks
from llama_jax.flops import CONVENTIONS
from llama_jax.units import human_count


def real_table(answer: Answer, corpus: Corpus | None, stars: Marks) -> Any:
    """Shape, batch, time and cost; numbers that come of an extrapolated choice are starred."""
    from rich.table import Table

    first = answer.plan.first
    served = " (cheapest to train and serve)" if first.served else ""
    table = Table(
        title=f"Nearest real run, by {first.law.about.name}{served}",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in (
        *_size(answer, stars),
        *_batch(answer, stars),
        *_mixture(answer, corpus),
        *_costs(answer, stars),
    ):
        table.add_row(name, value)
    return table


def _size(answer: Answer, stars: Marks) -> list[tuple[str, str]]:
    real, shape, goal = answer.real, answer.real.shape, answer.request.goal
    beyond = answer.plan.first.chosen.extrapolates
    grouped = (
        f" ({shape.num_kv_heads} of keys and values)"
        if shape.num_kv_heads < shape.num_heads
        else ""
    )
    params = stars.star(f"{real.at.params:,.0f}", beyond and goal != "params")
    tokens = stars.star(f"{real.at.tokens:,.0f}", beyond)
    apart = real.at.params / real.wanted.params - 1
    more = "more" if apart > 0 else "fewer"
    wanted = f"{abs(apart):.1%} {more} than wanted" if abs(apart) >= 5e-4 else "as wanted"
    rows = [
        (
            "shape",
            f"{shape.num_layers} layers x {shape.embed_dim}, MLP {shape.mlp_dim}, "
            f"{shape.num_heads} heads of {shape.head_dim}{grouped}, vocabulary "
            f"{shape.vocab_size:,}" + (" (tied)" if shape.tie_embeddings else ""),
        ),
        ("size", f"{params} parameters ({wanted}) on {tokens} tokens"),
    ]
    if (loss := real_loss(answer)) is not None:
        rows.append(("loss", f"{stars.star(f'{loss:.4f}', beyond)} nats per token after rounding"))
    for name, flops in real.flops.items():
        asked = goal == "flops" and name == answer.convention
        told = stars.star(f"{flops:.4g}", beyond and not asked)
        rows.append((f"FLOPs, {name}", f"{told}  [dim]{CONVENTIONS[name]}[/]"))
    return rows


def _batch(answer: Answer, stars: Marks) -> list[tuple[str, str]]:
    real, beyond = answer.real, answer.plan.first.chosen.extrapolates
    batch = stars.star(f"{real.batch_tokens:,}", beyond or real.suggestions[0].extrapolates)
    rate = stars.star(f"{real.peak_lr:.3g}", beyond or real.rate.extrapolates)
    updates = f"{real.num_steps:,} updates, peak learning rate {rate} ({real.rate.law})"
    made_of = f"{real.batch_rows:,} rows of {real.shape.max_seq_len:,}"
    rows = [("batch", f"{batch} tokens ({made_of}), {updates}")]
    for advice in real.suggestions:
        out = beyond or advice.extrapolates
        told = f"batch {stars.star(human_count(advice.batch_tokens), out)} tokens"
        if advice.peak_lr:
            told += f", learning rate {stars.star(f'{advice.peak_lr:.3g}', out)}"
        rows.append((f"  {advice.law}", told))
    return rows


def _mixture(answer: Answer, corpus: Corpus | None) -> list[tuple[str, str]]:
    if corpus is None:
        return []
    sources = corpus.table(answer.real.at.tokens)
    return [
        ("mixture", str(corpus.directory)),
        *((f"  {name}", value) for name, value in sources),
    ]


def _costs(answer: Answer, stars: Marks) -> list[tuple[str, str]]:
    cost, machine, real = cost_of(answer), answer.machine, answer.real
    pod = machine.pod
    where = f"{pod.count} x {pod.chip.name}" + (f" ({pod.topology})" if pod.topology else "")
    beyond = answer.plan.first.chosen.extrapolates
    derived = beyond and answer.request.goal != "flops"
    hours = stars.star(f"{cost['train_chip_hours']:,.0f}", derived)
    days = stars.star(f"{cost['train_seconds'] / 86_400:,.2f}", derived)
    rows = [
        (
            "training",
            f"{hours} chip-hours, {days} days on {where} at MFU {machine.train_mfu:.0%} of "
            f"{pod.chip.bf16_flops / 1e12:.0f} TFLOP/s ({answer.convention}), goodput "
            f"{machine.goodput:.0%}" + _money(cost["train_usd"], derived, stars),
        )
    ]
    if answer.request.serves:
        rows += _serving(answer, stars)
    if real.state_bytes > pod.count * pod.chip.hbm_bytes:
        held = pod.count * pod.chip.hbm_bytes / 1e9
        need = f"weights and AdamW take {real.state_bytes / 1e9:,.0f} GB, {where} have {held:,.0f}"
        rows.append(("memory", f"[red]does not fit[/]: {need}"))
    return rows


def _serving(answer: Answer, stars: Marks) -> list[tuple[str, str]]:
    cost, machine, beyond = cost_of(answer), answer.machine, answer.plan.first.chosen.extrapolates

    def told(phase: str, convention: str) -> str:
        flops = stars.star(f"{cost[phase + '_flops']:.3g}", beyond)
        hours = stars.star(f"{cost[phase + '_chip_hours']:,.0f}", beyond)
        return f"{flops} FLOPs ({convention}), {hours} chip-hours"

    rows = []
    for phase, name, mfu in (
        ("prefill", "reading", machine.prefill_mfu),
        ("decode", "writing", machine.decode_mfu),
    ):
        if cost[f"{phase}_flops"]:
            how = f" at MFU {mfu:.0%} (2N), goodput {machine.serve_goodput:.0%}"
            price = _money(cost[f"{phase}_usd"], beyond, stars)
            rows.append((f"serving, {name}", told(phase, "2N a token") + how + price))
    total = told("total", "6ND and 2N a token") + _money(cost["total_usd"], beyond, stars)
    return [*rows, ("in all", total)]


def _money(usd: float | None, beyond: object, stars: Marks) -> str:
    return "" if usd is None else f", {stars.star(f'${usd:,.0f}', beyond)}"
