"""What training and serving run on: time and money of so many FLOPs."""

import dataclasses
import math

from llama_jax.hardware import Pod
from llama_jax.scaling.serving import ServingDemand

_SECONDS_A_DAY = 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What the work runs on, and how much of its peak the work gets.

    MFU is of the time in which steps run; goodput is the share of all time in which they do, after
    restarts, checkpoints and waiting. The two are never multiplied into one printed number.

    Attributes:
        pod: Chips.
        train_mfu: Model FLOPs over peak while training.
        prefill_mfu: The same while reading prompts.
        decode_mfu: The same while writing.
        goodput: Share of the time that trains.
        serve_goodput: Share of the time that reads or writes.
        usd_per_chip_hour: Price of training; 0 leaves money out.
        prefill_usd_per_chip_hour: Price of reading prompts; 0 is that of training.
        decode_usd_per_chip_hour: Price of writing; 0 is that of training.
        counted: Training FLOPs as MFU and budgets count them, over 6ND.
    """

    pod: Pod
    train_mfu: float = 0.40
    prefill_mfu: float = 0.40
    decode_mfu: float = 0.05
    goodput: float = 0.90
    serve_goodput: float = 0.90
    usd_per_chip_hour: float = 0.0
    prefill_usd_per_chip_hour: float = 0.0
    decode_usd_per_chip_hour: float = 0.0
    counted: float = 1.0

    def __post_init__(self) -> None:
        for name in ("train_mfu", "prefill_mfu", "decode_mfu", "goodput", "serve_goodput"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be in (0, 1].")
        for name in ("usd", "prefill_usd", "decode_usd"):
            option = f"--{name.replace('_', '-')}-per-chip-hour"
            if not 0 <= (value := getattr(self, f"{name}_per_chip_hour")) < math.inf:
                raise ValueError(f"{option}={value} must be zero or more.")
            if value and not self.usd_per_chip_hour:
                raise ValueError(
                    f"{option}={value} needs --usd-per-chip-hour: dollars of serving are weighed "
                    "against dollars of training."
                )

    def train_seconds(self, flops: float) -> float:
        """Wall clock of a run of so many FLOPs (6ND), goodput included."""
        return flops * self.counted / (self.pod.bf16_flops * self.train_mfu * self.goodput)

    def train_chip_hours(self, flops: float) -> float:
        """Chips times hours, goodput included."""
        return self.train_seconds(flops) * self.pod.count / 3600

    def prefill_chip_hours(self, flops: float) -> float:
        """Of reading prompts, goodput included."""
        return flops / self._flops_an_hour(self.prefill_mfu * self.serve_goodput)

    def decode_chip_hours(self, flops: float) -> float:
        """Of writing, goodput included."""
        return flops / self._flops_an_hour(self.decode_mfu * self.serve_goodput)

    def flops_in(self, days: float) -> float:
        """Training FLOPs of so many days, as MFU counts them."""
        return self.pod.bf16_flops * self.train_mfu * self.goodput * days * _SECONDS_A_DAY

    def flops_for(self, usd: float) -> float:
        """Training FLOPs that so much money buys, as MFU counts them.

        Raises:
            ValueError: If no price is known.
        """
        if not self.usd_per_chip_hour:
            raise ValueError("--usd needs --usd-per-chip-hour: prices are by contract and region.")
        return usd / self.usd_per_chip_hour * self._flops_an_hour(self.train_mfu * self.goodput)

    @property
    def prefill_price(self) -> float:
        """Dollars a chip-hour of reading; 0 where money is left out."""
        return self.prefill_usd_per_chip_hour or self.usd_per_chip_hour

    @property
    def decode_price(self) -> float:
        """Dollars a chip-hour of writing; 0 where money is left out."""
        return self.decode_usd_per_chip_hour or self.usd_per_chip_hour

    def demand(self, input_tokens: float, output_tokens: float) -> ServingDemand:
        """Serving, weighed by money where there is a price and by FLOPs where there is none."""
        if not self.usd_per_chip_hour:
            return ServingDemand(input_tokens=input_tokens, output_tokens=output_tokens)
        return ServingDemand(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            train_weight=self.usd_per_chip_hour * self.train_chip_hours(1.0),
            input_weight=self.prefill_price * self.prefill_chip_hours(1.0),
            output_weight=self.decode_price * self.decode_chip_hours(1.0),
        )

    def _flops_an_hour(self, share: float) -> float:
        return self.pod.chip.bf16_flops * share * 3600
