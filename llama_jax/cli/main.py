"""`llama-jax COMMAND`: finds the command's file and turns refusals into messages."""

import difflib
import importlib
import sys

from llama_jax import __version__
from llama_jax.refusal import is_refusal

# Written here and not read from the modules, so that `--help` imports none of them.
COMMANDS = {
    "train": "pretrain a model; started again, it resumes by itself",
    "launch": "run it on many hosts: here, on TPUs, Kubernetes, Slurm or Ray",
    "report": "show what a run did: curves, where its time went, what went wrong",
    "taint": "have a run go back to before an update, and pass over data",
    "eval": "score a checkpoint on held-out documents, source by source",
    "generate": "continue prompts with a checkpoint",
    "tokenizer": "train or inspect a tokenizer",
    "data": "build token shards from raw documents; look into them",
    "convert": "take checkpoints to PyTorch and back",
    "plan": "turn a budget into parameters, tokens, time and cost",
    "doctor": "compile a run for a pod that is not here; say what it will do there",
    "scaling": "fit scaling laws to runs; train a ladder of small ones",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 done, 1 the work failed, 2 the request was wrong, 75 stopped early after saving, 130
        interrupted.

    Raises:
        Exception: What nobody foresaw, which Python shows with its traceback before it ends with 1.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"llama-jax {__version__}")
        return 0
    command = argv[0]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(COMMANDS)}."
        return _refuse(f"COMMAND={command!r} is no command. {hint}")
    try:
        return importlib.import_module(f"llama_jax.cli.{command}").main(argv[1:])
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say to it.
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        # While it was still importing, say: commands that can go on later say so themselves.
        print(f"llama-jax {command}: stopped.", file=sys.stderr)
        return 130
    # Before the next: what fails in a task of a build is both.
    except OSError as failure:
        print(f"llama-jax {command}: failed: {failure}", file=sys.stderr)
        return 1
    except ValueError as error:
        if not is_refusal(error):
            raise
        return _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"llama-jax: error: {message}", file=sys.stderr)
    return 2


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        "Pretrains LLaMA models with JAX, from a laptop to TPU and GPU pods.\n\n"
        "usage: llama-jax COMMAND [...]\n\n"
        f"commands:\n{rows}\n\n"
        "`llama-jax COMMAND --help` explains a command and gives an example.\n\n"
        "example:\n"
        "  llama-jax data build demo --out demo_run/data\n"
        "  llama-jax train demo --run-dir demo_run/model --train.num-steps 200\n\n"
        "exit codes: 0 done, 1 the work failed, 2 the request was wrong, 75 stopped early on a\n"
        "preemption after saving (start again to resume)."
    )


if __name__ == "__main__":
    sys.exit(main())
