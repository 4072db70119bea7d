"""Turn a budget into parameters and tokens."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llama_jax.cli.plan.options import Budget

if TYPE_CHECKING:
    from llama_jax.cli.plan.compiled import Verdict
    from llama_jax.hardware import Pod

USAGE = """usage: llama-jax plan
           (--flops X | --params X | --target-loss X | --usd X | --chips POD --days X)
           [--serve-tokens X] [--unique-tokens X | --data DIR] [--law NAME|FILE ...]
           [--write RECIPE] [--json]
       llama-jax plan compare [--flops X | ...] [--law NAME|FILE ...] [--json]

Says how many parameters on how many tokens, law by law, with intervals and what they disagree
about; at what loss, time and cost; and the nearest real shape, batch and learning rate. The recipe
of --write is compiled for --chips, where their compiler is installed: does it fit, how fast is it?
With --data it reads those token shards, whose mixture is filled in with the epochs of each source.
`compare` puts a plan beside LLaMA, Chinchilla, Gopher and GPT-3: who was under- or over-trained.

laws: chinchilla-1, chinchilla-2, chinchilla-3, besiroglu, llama3, muennighoff, or a file that
`llama-jax scaling fit` wrote. The first one named is the plan; by default it is besiroglu.

examples:
  llama-jax plan --flops 1e21
  llama-jax plan --chips v5p:4x4x8 --days 14 --serve-tokens 1e13
  llama-jax plan --usd 50000 --chips h100 --usd-per-chip-hour 2.5
  llama-jax plan --params 7e9 --serve-tokens 1e13 --write configs/mine.py
  llama-jax plan --flops 1e22 --unique-tokens 3e10
  llama-jax plan --params 3e6 --data demo_run/data --write configs/mine.py
  llama-jax plan compare --flops 1e23 --serve-tokens 1e13

`llama-jax plan --flops 1e21 --help` lists every option."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Budget):
    """Options of `plan`."""

    data: Path | None = None
    """Folder of `data build`: its tokens exist, its tokenizer gives the vocabulary, and the written
    recipe reads its mixture."""
    picture: Path | None = None
    """File to draw the plan into, .png or .svg."""
    write: Path | None = None
    """Recipe to write, .py or .json; `llama-jax train` takes it."""
    compile_minutes: float = 10.0
    """Most minutes for compiling the written recipe for --chips, where their compiler is installed
    (pip install 'llama-jax[tpu]'); 0 leaves it out."""


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
    from llama_jax.cli.plan.answer import make_answer

    _check_files(options)
    corpus = None
    if options.data is not None:
        from llama_jax.cli.plan.corpus import read_corpus

        corpus = read_corpus(options.data)
        options = dataclasses.replace(
            options,
            unique_tokens=options.unique_tokens or float(corpus.num_tokens),
            vocab_size=options.vocab_size or corpus.vocab_size,
        )
    answer = make_answer(options)
    pod = answer.machine.pod if options.chips else None
    written: list[Path] = []
    if options.write is not None:
        from llama_jax.cli.plan.recipe import write_recipe

        write_recipe(options.write, answer, pod, corpus)
        written.append(options.write)
    if options.picture is not None:
        from llama_jax.scaling.plan_pictures import plot_plan

        plot_plan(answer.plan, options.picture)
        written.append(options.picture)
    if not options.json:
        from llama_jax.cli.plan.page import print_page

        print_page(answer, corpus)
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    verdict = _compile(options, pod) if options.write is not None else None
    if options.json:
        from llama_jax.cli.plan.document import document

        compiled = {"compiled": verdict.document()} if verdict else {}
        print(json.dumps(document(answer, corpus) | compiled, indent=2))
    elif verdict:
        print(f"\n{verdict}")
    return 0


def _compile(options: Options, pod: "Pod | None") -> "Verdict":
    from llama_jax.cli.plan.compiled import compile_recipe

    assert options.write is not None
    return compile_recipe(
        options.write,
        pod,
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
