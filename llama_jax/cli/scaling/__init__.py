"""Fit scaling laws to a table of runs; make such a table."""

import sys

USAGE = """usage: llama-jax scaling fit RUNS.csv [--form FORM] [--drop-highest N] [--out LAW.json]
           [--picture FILE] [--json]
       llama-jax scaling ladder LADDER.py --out DIR [--data DIR] [--json]
       llama-jax scaling sweep RECIPE --learning-rates X X ... [--seeds N ...] [--json]
       llama-jax scaling report RUNS.csv --out PAGE.html [--json]
       llama-jax scaling coordinate-check RECIPE --widths N N ... [--picture FILE] [--json]

Fits a scaling law to runs, with bootstrap intervals. RUNS.csv has a header and one run a row:
params (or N), tokens (or D) and loss; flops (or budget, C) may stand in for tokens. Rows of the
same parameters and tokens are seeds: they are drawn together, and tell the noise. Of a ladder's
runs.csv, what it holds out is not fitted but predicted.

forms:
  chinchilla        E + A/N^alpha + B/D^beta, Huber loss on the log loss (Hoffmann et al. 2022)
  isoflop           best size at each budget by a parabola, a power law through them
  envelope          best size at each compute from curves of each size, a power law through them
  overtrain         one exponent for both terms, least squares (Gadre et al. 2024)
  data-constrained  what repeated tokens are worth; needs unique_tokens (or U)

examples:
  llama-jax scaling fit runs.csv --picture fit.png
  llama-jax scaling fit runs.csv --drop-highest 5 --out law.json
  llama-jax plan --flops 1e21 --law law.json
  llama-jax scaling fit runs.csv --form isoflop --loss-column c4_loss
  llama-jax scaling ladder configs/ladders/tiny.py --out ladder --data demo_run/data
  llama-jax scaling sweep configs/ladders/tiny.py --rung 0 --learning-rates 2e-3 4e-3 8e-3
    --data demo_run/data
  llama-jax scaling report ladder/runs.csv --out ladder/report.html
  llama-jax scaling coordinate-check demo --data demo_run/data --widths 64 128 256"""


def main(argv: list[str]) -> int:
    """Runs `llama-jax scaling`."""
    if not argv or argv in (["-h"], ["--help"], ["fit"], ["fit", "-h"]):
        print(USAGE, file=sys.stdout if argv[-1:] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[-1:] in (["-h"], ["--help"]) else 2
    if argv[0] == "ladder":
        from llama_jax.cli.scaling.ladder import main as ladder

        return ladder(argv[1:])
    if argv[0] == "sweep":
        from llama_jax.cli.scaling.sweep import main as sweep

        return sweep(argv[1:])
    if argv[0] == "report":
        from llama_jax.cli.scaling.report import main as report

        return report(argv[1:])
    if argv[0] == "coordinate-check":
        from llama_jax.cli.scaling.coordinate_check import main as coordinate_check

        return coordinate_check(argv[1:])
    if argv[0] != "fit":
        raise ValueError(
            f"scaling {argv[0]!r} is no command. There are: fit, ladder, sweep, report, "
            "coordinate-check."
        )
    if argv[1].startswith("-"):
        if argv[1] == "--help":
            print(USAGE)
            return 0
        raise ValueError(f"scaling fit needs RUNS.csv before {argv[1]}.")
    from llama_jax.cli.scaling.fit import main as fit

    return fit(argv[1:], USAGE.partition("\n\n")[2])
