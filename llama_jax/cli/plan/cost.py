"""What the run of a plan costs to train and to serve, in FLOPs, hours and money."""

from typing import Any

from llama_jax.cli.plan.answer import Answer


def cost_of(answer: Answer) -> dict[str, Any]:
    """The costs of the real run; dollars are None where no price is known."""
    request, real, machine = answer.request, answer.real, answer.machine
    flops = real.at.flops
    prefill_flops = 2 * real.at.params * request.serve_input_tokens
    decode_flops = 2 * real.at.params * request.serve_output_tokens
    train_hours = machine.train_chip_hours(flops)
    prefill_hours = machine.prefill_chip_hours(prefill_flops)
    decode_hours = machine.decode_chip_hours(decode_flops)
    usd = {
        "train_usd": train_hours * machine.usd_per_chip_hour,
        "prefill_usd": prefill_hours * machine.prefill_price,
        "decode_usd": decode_hours * machine.decode_price,
    }
    usd["serve_usd"] = usd["prefill_usd"] + usd["decode_usd"]
    usd["total_usd"] = usd["train_usd"] + usd["serve_usd"]
    priced = machine.usd_per_chip_hour > 0
    return {
        "train_seconds": machine.train_seconds(flops),
        "train_flops": flops,
        "train_chip_hours": train_hours,
        "prefill_flops": prefill_flops,
        "prefill_chip_hours": prefill_hours,
        "decode_flops": decode_flops,
        "decode_chip_hours": decode_hours,
        "serve_flops": prefill_flops + decode_flops,
        "serve_chip_hours": prefill_hours + decode_hours,
        "total_flops": flops + prefill_flops + decode_flops,
        "total_chip_hours": train_hours + prefill_hours + decode_hours,
        **{name: value if priced else None for name, value in usd.items()},
        "chip": machine.pod.chip.name,
        "chips": machine.pod.count,
        "peak_flops_per_chip": machine.pod.chip.bf16_flops,
        "train_mfu": machine.train_mfu,
        "prefill_mfu": machine.prefill_mfu,
        "decode_mfu": machine.decode_mfu,
        "goodput": machine.goodput,
        "serve_goodput": machine.serve_goodput,
        "flops_convention": "6ND of training, 2N a token of serving",
        "mfu_convention": answer.convention,
    }
