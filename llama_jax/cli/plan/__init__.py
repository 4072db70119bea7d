"""Turn a budget into parameters and tokens."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_jax.cli.plan.compiled import Verdict
    from llama_jax.scaling.plan import Machine, Request

USAGE = """usage: llama-jax plan
           (--flops X | --params X | --target-loss X | --usd X | --chips POD --days X)
           [--serve-tokens X] [--unique-tokens X | --data DIR] [--law NAME|FILE ...]
           [--write RECIPE] [--json]
       llama-jax plan compare [--law NAME|FILE] [--json]

Says how many parameters on how many tokens, law by law, with intervals and what they disagree
about; at what loss, time and cost; and the nearest real shape, batch and learning rate. The recipe
of --write is compiled for --chips, where their compiler is installed: does it fit, how fast is it?
With --data it reads those token shards, whose mixture is filled in with the epochs of each source.
`compare` puts LLaMA, Chinchilla, Gopher and GPT-3 beside a law: who was under- or over-trained.

laws: chinchilla-1, chinchilla-2, chinchilla-3, besiroglu, llama3, muennighoff, or a file that
`llama-jax scaling fit` wrote. The first one named is the plan; by default it is besiroglu.

examples:
  llama-jax plan --flops 1e21
  llama-jax plan --chips v5p:4x4x8 --days 14 --serve-tokens 1e13
  llama-jax plan --usd 50000 --chips h100 --usd-per-chip-hour 2.5
  llama-jax plan --params 7e9 --unique-tokens 3e10 --write configs/mine.py
  llama-jax plan --params 3e6 --data demo_run/data --write configs/mine.py
  llama-jax plan compare

`llama-jax plan --flops 1e21 --help` lists every option."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `plan`."""

    flops: float | None = None
    """Training FLOPs, counted as 6ND."""
    params: float | None = None
    """Parameters; each law then says for how many tokens they are the best choice."""
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
    serve_usd_per_chip_hour: float = 0.0
    """Price while serving; that of training by default."""
    serve_tokens: float = 0.0
    """Tokens served over the model's life."""
    prompt_share: float = 0.0
    """Share of the served tokens that are read and not written."""
    unique_tokens: float = 0.0
    """Tokens that exist; beyond them tokens repeat. Those of --data by default."""
    data: Path | None = None
    """Folder of `data build`: its tokens exist, its tokenizer gives the vocabulary, and the written
    recipe reads its mixture."""
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
    vocab_size: int = 0
    """Of the tokenizer; by default 32,000, or 8,192 below 400M parameters."""
    seq_len: int = 0
    """Tokens of a row; by default 4,096 from 1B parameters on, then 2,048, below 400M 1,024."""
    picture: Path | None = None
    """File to draw the plan into, .png or .svg."""
    write: Path | None = None
    """Recipe to write, .py or .json; `llama-jax train` takes it."""
    compile_minutes: float = 10.0
    """Most minutes for compiling the written recipe for --chips, where their compiler is installed
    (pip install 'llama-jax[tpu]'); 0 leaves it out."""
    json: bool = False
    """Print one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    if not argv or argv in (["-h"], ["--help"]):
        print(USAGE, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "compare":
        from llama_jax.cli.plan.compare import main as compare

        return compare(argv[1:])
    if not argv[0].startswith("-"):
        raise ValueError(f"plan {argv[0]!r} is no command. Did you mean plan compare?")
    import tyro

    description = USAGE.partition("\n\n")[2]
    return _plan(tyro.cli(Options, prog="llama-jax plan", description=description, args=argv))


def _plan(options: Options) -> int:
    from llama_jax.cli.laws import read_laws
    from llama_jax.hardware import parse_pod
    from llama_jax.scaling.plan import Machine, make_plan
    from llama_jax.scaling.published import DEFAULT_LAWS
    from llama_jax.scaling.realised import realise

    _check_files(options)
    if not 0 <= options.prompt_share <= 1:
        raise ValueError(f"--prompt-share={options.prompt_share} must be in [0, 1].")
    machine = Machine(
        pod=parse_pod(options.chips or "h100"),
        train_mfu=options.train_mfu,
        prefill_mfu=options.prefill_mfu,
        decode_mfu=options.decode_mfu,
        goodput=options.goodput,
        usd_per_chip_hour=options.usd_per_chip_hour,
        serve_usd_per_chip_hour=options.serve_usd_per_chip_hour,
    )
    corpus = None
    if options.data is not None:
        from llama_jax.cli.plan.corpus import read_corpus

        corpus = read_corpus(options.data)
        options = dataclasses.replace(
            options,
            unique_tokens=options.unique_tokens or float(corpus.num_tokens),
            vocab_size=options.vocab_size or corpus.vocab_size,
        )
    request = _request(options, machine)
    plan = make_plan(request, read_laws(options.law or DEFAULT_LAWS), machine)
    real = realise(
        plan.laws[0].chosen,
        machine.pod,
        vocab_size=options.vocab_size,
        seq_len=options.seq_len,
        most_flops=request.value if request.goal == "flops" else math.inf,
    )
    from llama_jax.cli.plan.page import document, print_page

    written: list[Path] = []
    if options.write is not None:
        from llama_jax.cli.plan.recipe import write_recipe

        write_recipe(options.write, plan, real, machine.pod if options.chips else None, corpus)
        written.append(options.write)
    if options.picture is not None:
        from llama_jax.scaling.pictures import plot_plan

        plot_plan(plan, options.picture)
        written.append(options.picture)
    if not options.json:
        print_page(plan, real, machine, corpus)
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    verdict = _compile(options, machine) if options.write is not None else None
    if options.json:
        compiled = {"compiled": verdict.document()} if verdict else {}
        print(json.dumps(document(plan, real, machine, corpus) | compiled, indent=2))
    elif verdict:
        print(f"\n{verdict}")
    return 0


def _compile(options: Options, machine: "Machine") -> "Verdict":
    from llama_jax.cli.plan.compiled import compile_recipe

    assert options.write is not None
    return compile_recipe(
        options.write,
        machine.pod if options.chips else None,
        minutes=options.compile_minutes,
        goodput=options.goodput,
        usd_per_chip_hour=options.usd_per_chip_hour,
    )


def _check_files(options: Options) -> None:
    if options.write is not None:
        if options.write.suffix not in (".py", ".json"):
            raise ValueError(f"--write={options.write} must end in .py or .json.")
        if options.write.exists():
            raise ValueError(f"--write={options.write} exists; name a new file.")
    if not 0 <= options.compile_minutes < math.inf:
        raise ValueError(f"--compile-minutes={options.compile_minutes} must be 0 or more.")
    if options.picture is not None and options.picture.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture={options.picture} must end in .png, .svg or .pdf.")


def _request(options: Options, machine: "Machine") -> "Request":
    from llama_jax.scaling.plan import Request

    if options.days is not None and not options.chips:
        raise ValueError(f"--days={options.days} needs --chips: days on what?")
    given = [
        name
        for name in ("flops", "params", "target_loss", "days", "usd")
        if getattr(options, name) is not None
    ]
    if len(given) != 1:
        told = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
        raise ValueError(
            "Give exactly one of --flops, --params, --target-loss, --usd, or --days with --chips; "
            f"got {told}."
        )
    value = getattr(options, given[0])
    if not 0 < value < float("inf"):
        raise ValueError(f"--{given[0].replace('_', '-')}={value} must be positive and finite.")
    if given[0] == "days":
        value = machine.flops_in(value)
    elif given[0] == "usd":
        value = machine.flops_for(value)
    return Request(
        goal=given[0] if given[0] in ("params", "target_loss") else "flops",
        value=value,
        serve_input_tokens=options.serve_tokens * options.prompt_share,
        serve_output_tokens=options.serve_tokens * (1 - options.prompt_share),
        unique_tokens=options.unique_tokens,
    )
