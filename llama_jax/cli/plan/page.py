"""A plan as tables for people, and as a document for programs."""

import dataclasses
from typing import Any

from llama_jax.cli.plan.corpus import Corpus
from llama_jax.flops import count_params
from llama_jax.scaling.laws import Allocation, LossLaw
from llama_jax.scaling.plan import LawPlan, Machine, Plan
from llama_jax.scaling.realised import Realised
from llama_jax.scaling.shapes import describe
from llama_jax.units import human_count

_BEYOND = "*"


def print_page(plan: Plan, real: Realised, machine: Machine, corpus: Corpus | None = None) -> None:
    """Prints the answer on stdout."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_laws_table(plan))
    if any(answer.served for answer in plan.laws):
        console.print(_served_table(plan))
    if any(_beyond(answer) for answer in plan.laws):
        console.print(f"[dim]{_BEYOND} outside the data of the law: extrapolated[/]")
    for name, reason in plan.without_answer:
        console.print(f"[dim]{name} does not answer: {reason}[/]")
    console.print(_disagreement(plan))
    console.print()
    console.print(_real_table(plan, real, machine, corpus))


def _beyond(answer: LawPlan) -> tuple[str, ...]:
    return (*answer.extrapolates, *answer.served_extrapolates)


def _laws_table(plan: Plan) -> Any:
    names = ["parameters", "95%", "tokens", "ratio", "loss", "95%"]
    if plan.request.goal != "flops":
        names.append("FLOPs")
    if plan.request.unique_tokens:
        names.append("epochs")
    table = _table(_title(plan), names)
    for answer in plan.laws:
        best, beyond = answer.best, bool(answer.extrapolates)
        cells = [
            _count(best.params, "params" in answer.extrapolates),
            _range(answer.params_interval, human_count),
            _count(best.tokens, "tokens" in answer.extrapolates),
            _ratio(best),
            "" if answer.loss is None else f"{answer.loss:.4f}" + _BEYOND * beyond,
            _range(answer.loss_interval, lambda value: f"{value:.3f}"),
        ]
        if plan.request.goal != "flops":
            cells.append(f"{best.flops:.3g}" + _BEYOND * ("flops" in answer.extrapolates))
        if plan.request.unique_tokens:
            cells.append(f"{best.tokens / plan.request.unique_tokens:.3g}")
        # The budget itself, which has no column, may lie beyond the law's data.
        beyond = plan.request.goal == "flops" and "flops" in answer.extrapolates
        table.add_row(answer.law.about.name + _BEYOND * beyond, *cells)
    return table


def _served_table(plan: Plan) -> Any:
    names = ["parameters", "tokens", "ratio", "loss", "training", "in all", "saved"]
    if plan.request.unique_tokens:
        names.append("epochs")
    unit, tell = ("dollars", _usd) if plan.weighted_by_money else ("FLOPs", "{:.3g}".format)
    held = "within the budget" if plan.request.goal == "flops" else "at the same loss"
    table = _table(f"Cheapest to train and serve, {held} ({unit} decide)", names)
    for answer in plan.laws:
        if (served := answer.served) is None or answer.instead is None:
            continue
        total, instead = plan.demand.cost(served), plan.demand.cost(answer.instead)
        cells = [
            _count(served.params, "params" in answer.served_extrapolates),
            _count(served.tokens, "tokens" in answer.served_extrapolates),
            _ratio(served),
            f"{answer.served_loss:.4f}" + _BEYOND * bool(answer.served_extrapolates),
            tell(plan.demand.training_cost(served))
            + _BEYOND * ("flops" in answer.served_extrapolates),
            tell(total),
            f"{1 - total / instead:.1%}",
        ]
        if plan.request.unique_tokens:
            cells.append(f"{answer.epochs:.3g}")
        table.add_row(answer.law.about.name, *cells)
    return table


def _table(title: str, columns: list[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("law", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _title(plan: Plan) -> str:
    request = plan.request
    asked = {
        "flops": f"{request.value:.3g} training FLOPs (6ND)",
        "params": f"{human_count(request.value)} parameters",
        "target_loss": f"a loss of {request.value:.4g} nats per token",
    }[request.goal]
    if request.serves:
        asked += f", {human_count(_served_tokens(plan))} tokens served"
    if request.unique_tokens:
        asked += f", {human_count(request.unique_tokens)} unique tokens"
    return f"Plan for {asked}"


def _disagreement(plan: Plan) -> str:
    regrets = plan.regrets()
    told = f"The laws' parameters differ by a factor of {plan.disagreement:.2f}."
    for judge, losses in regrets.items():
        chosen, worst = max(losses.items(), key=lambda item: item[1])
        if worst > 1e-6:
            told += f" If {judge} is right, {chosen}'s choice loses {worst:.4f} nats per token."
    return told


def _real_table(plan: Plan, real: Realised, machine: Machine, corpus: Corpus | None) -> Any:
    from rich.table import Table

    first = plan.laws[0]
    table = Table(
        title=f"Nearest real run, by {first.law.about.name}"
        + (" (cheapest to train and serve)" if first.served else ""),
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    shape = real.shape
    table.add_row(
        "shape",
        f"{shape.num_layers} layers x {shape.embed_dim}, MLP {shape.mlp_dim}, {shape.num_heads} "
        f"heads of {shape.head_dim}, vocabulary {shape.vocab_size:,}"
        + (" (tied)" if shape.tie_embeddings else ""),
    )
    table.add_row(
        "size",
        f"{real.at.params:,.0f} parameters ({real.at.params / real.wanted.params - 1:+.1%} of what "
        f"the law wants) on {real.at.tokens:,.0f} tokens",
    )
    if (loss := _real_loss(plan, real)) is not None:
        table.add_row("loss", f"{loss:.4f} nats per token after rounding")
    for name, flops in real.flops.items():
        table.add_row(f"FLOPs, {name}", f"{flops:.4g}")
    table.add_row(
        "batch",
        f"{real.batch_tokens:,} tokens ({real.batch_rows:,} rows of {shape.max_seq_len:,}), "
        f"{real.num_steps:,} updates, peak learning rate {real.peak_lr:.3g}",
    )
    for advice in real.suggestions:
        rate = f", learning rate {advice.peak_lr:.3g}" if advice.peak_lr else ""
        table.add_row(
            f"  {advice.law}{_BEYOND * bool(advice.extrapolates)}",
            f"batch {human_count(advice.batch_tokens)} tokens{rate}",
        )
    if corpus:
        table.add_row("mixture", str(corpus.directory))
        for name, value in corpus.table(real.at.tokens):
            table.add_row(f"  {name}", value)
    for name, value in _costs(plan, real, machine):
        table.add_row(name, value)
    return table


def _costs(plan: Plan, real: Realised, machine: Machine) -> list[tuple[str, str]]:
    facts = _cost_facts(plan, real, machine)
    pod = machine.pod
    where = f"{pod.count} x {pod.chip.name}" + (f" ({pod.topology})" if pod.topology else "")
    days = facts["train_seconds"] / 86_400
    rows = [
        (
            "training",
            f"{facts['train_chip_hours']:,.0f} chip-hours, {days:,.2f} days on {where} at MFU "
            f"{machine.train_mfu:.0%} of {pod.chip.bf16_flops / 1e12:.0f} TFLOP/s (6ND), goodput "
            f"{machine.goodput:.0%}" + _money(facts["train_usd"]),
        )
    ]
    if plan.request.serves:
        rows.append(
            (
                "serving",
                f"{facts['serve_flops']:.3g} FLOPs (2N a token), {facts['serve_chip_hours']:,.0f} "
                f"chip-hours at MFU {machine.prefill_mfu:.0%} reading, {machine.decode_mfu:.0%} "
                "writing" + _money(facts["serve_usd"]),
            )
        )
    if real.state_bytes > pod.count * pod.chip.hbm_bytes:
        held = pod.count * pod.chip.hbm_bytes / 1e9
        need = f"weights and AdamW take {real.state_bytes / 1e9:,.0f} GB, {where} have {held:,.0f}"
        rows.append(("memory", f"[red]does not fit[/]: {need}"))
    return rows


def _cost_facts(plan: Plan, real: Realised, machine: Machine) -> dict[str, Any]:
    request = plan.request
    flops, N = real.flops["6ND"], real.at.params
    peak = machine.pod.chip.bf16_flops
    hours = machine.train_chip_hours(flops)
    serve_hours = (
        2
        * N
        * (
            request.serve_input_tokens / machine.prefill_mfu
            + request.serve_output_tokens / machine.decode_mfu
        )
        / peak
        / 3600
    )
    price = machine.usd_per_chip_hour
    serve_price = machine.serve_usd_per_chip_hour or price
    serve_flops = 2 * N * _served_tokens(plan)
    return {
        "train_seconds": machine.train_seconds(flops),
        "train_chip_hours": hours,
        "train_usd": hours * price or None,
        "serve_flops": serve_flops,
        "serve_chip_hours": serve_hours,
        "serve_usd": serve_hours * serve_price or None,
        "total_flops": flops + serve_flops,
    }


def _real_loss(plan: Plan, real: Realised) -> float | None:
    law, limit = plan.laws[0].law, plan.request.limit
    if not isinstance(law, LossLaw):
        return None
    return limit.loss(law, *real.at) if limit else law.loss(*real.at)


def document(
    plan: Plan, real: Realised, machine: Machine, corpus: Corpus | None = None
) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "request": dataclasses.asdict(plan.request),
        "laws": [_law_document(plan, answer) for answer in plan.laws],
        "without_answer": dict(plan.without_answer),
        "disagreement": {"params_factor": plan.disagreement, "regret_nats": plan.regrets()},
        "run": {
            "law": plan.laws[0].law.about.name,
            "shape": describe(real.shape),
            "params": real.at.params,
            "non_embedding_params": count_params(real.shape).non_embedding,
            "tokens": real.at.tokens,
            "loss_nats_per_token": _real_loss(plan, real),
            "flops": real.flops,
            "batch_rows": real.batch_rows,
            "batch_tokens": real.batch_tokens,
            "seq_len": real.shape.max_seq_len,
            "num_steps": real.num_steps,
            "peak_lr": real.peak_lr,
            "suggestions": [dataclasses.asdict(advice) for advice in real.suggestions],
            "state_bytes": real.state_bytes,
            "mixture": corpus.document(real.at.tokens) if corpus else [],
        },
        "cost": _cost_facts(plan, real, machine)
        | {
            "chip": machine.pod.chip.name,
            "chips": machine.pod.count,
            "peak_flops_per_chip": machine.pod.chip.bf16_flops,
            "train_mfu": machine.train_mfu,
            "prefill_mfu": machine.prefill_mfu,
            "decode_mfu": machine.decode_mfu,
            "goodput": machine.goodput,
            "flops_convention": "6ND",
        },
    }


def _law_document(plan: Plan, answer: LawPlan) -> dict[str, Any]:
    served, instead = answer.served, answer.instead
    return {
        "law": answer.law.about.name,
        "about": dataclasses.asdict(answer.law.about),
        "params": answer.best.params,
        "params_interval_95": answer.params_interval,
        "tokens": answer.best.tokens,
        "train_flops": answer.best.flops,
        "loss_nats_per_token": answer.loss,
        "loss_interval_95": answer.loss_interval,
        "extrapolates": answer.extrapolates,
        "epochs": answer.epochs or None,
        "served": served
        and instead
        and {
            "params": served.params,
            "tokens": served.tokens,
            "loss_nats_per_token": answer.served_loss,
            "train_flops": served.flops,
            "total_flops": _total_flops(plan, served),
            "params_of_best": instead.params,
            "total_flops_of_best": _total_flops(plan, instead),
            "extrapolates": answer.served_extrapolates,
        },
    }


def _served_tokens(plan: Plan) -> float:
    return plan.request.serve_input_tokens + plan.request.serve_output_tokens


def _total_flops(plan: Plan, at: Allocation) -> float:
    return at.flops + 2 * at.params * _served_tokens(plan)


def _count(value: float, beyond: bool) -> str:
    return human_count(value) + (_BEYOND if beyond else "")


def _ratio(at: Allocation) -> str:
    ratio = at.tokens / at.params
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def _range(ends: tuple[float, float] | None, tell: Any) -> str:
    return "" if ends is None else f"{tell(ends[0])}-{tell(ends[1])}"


def _usd(value: float) -> str:
    return f"${human_count(value)}"


def _money(usd: float | None) -> str:
    return "" if usd is None else f", ${usd:,.0f}"
