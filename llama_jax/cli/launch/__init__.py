"""Start a run on many hosts and keep it going: here, on TPUs, Kubernetes, Slurm or Ray."""

import difflib
import importlib
import sys

# Module and summary of each; nothing of them is imported for `--help`.
PLATFORMS = {
    "local": ("local", "several processes on this machine, with simulated devices"),
    "tpu-vm": ("tpu_vm", "Cloud TPU VMs: queued resources, a service a host"),
    "gke": ("gke", "Kubernetes: a JobSet of TPU slices or GPU nodes, with Kueue"),
    "slurm": ("slurm", "Slurm: one process a GPU or a node"),
    "ray": ("ray", "a Ray cluster that is there already"),
    "supervise": ("supervise", "any command that starts all processes of a run"),
}
VERBS = {
    "status": "how far a run is, and which process is silent or stopped",
    "logs": "what its processes say",
    "stop": "have it save and stop",
    "resume": "start it again as it was launched",
}


def main(argv: list[str]) -> int:
    """Runs `llama-jax launch`; see `--help`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    word = argv[0]
    if word in PLATFORMS:
        return importlib.import_module(f"llama_jax.cli.launch.{PLATFORMS[word][0]}").main(argv[1:])
    if word in VERBS:
        return importlib.import_module("llama_jax.cli.launch.status").main(word, argv[1:])
    known = [*PLATFORMS, *VERBS]
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}."
    raise ValueError(f"PLATFORM={word!r} is none. {hint}")


def _usage() -> str:
    def rows(table: dict[str, str]) -> str:
        return "\n".join(f"  {name:<9} {summary}" for name, summary in table.items())

    platforms = rows({name: summary for name, (_, summary) in PLATFORMS.items()})
    return (
        "usage: llama-jax launch PLATFORM RECIPE [flags] [any flag of llama-jax train]\n"
        "       llama-jax launch status|logs|stop|resume NAME\n\n"
        "Starts a run on many hosts, and starts it again from its last checkpoint when one dies.\n"
        "--dry-run prints exactly what would run and starts nothing; --json prints a document.\n\n"
        f"platforms:\n{platforms}\n\nof a launched run:\n{rows(VERBS)}\n\n"
        "examples:\n"
        "  llama-jax launch local demo --processes 2 --devices-per-process 2\n"
        "  llama-jax launch status demo\n\n"
        "`llama-jax launch PLATFORM --help` explains a platform."
    )
