"""Have a run go back to before an update that is not trusted."""

import dataclasses
import json
import sys
from pathlib import Path

from llama_jax.remote.objects import shown
from llama_jax.remote.run_files import read_only_copy

USAGE = """usage: llama-jax taint RUN_DIR --since STEP [--pass-over UPDATES] [--reason TEXT]
           [--json]

Notes that nothing after update STEP is trusted. The next start of the run goes back to its last
good checkpoint of STEP or before; later ones are kept aside as STEP.tainted and never used. With
--pass-over, the data that so many updates after STEP had are passed over.

example: llama-jax taint runs/llama2_7b --since 41200 --pass-over 300 --reason "loss spike" """


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `taint`."""

    since: int
    """Last update that is trusted; 0 begins anew."""
    pass_over: int = 0
    """Updates after it whose data are passed over."""
    reason: str = "said by hand"
    """For people."""
    json: bool = False
    """Print what was noted as one JSON document on stdout."""


def main(argv: list[str]) -> int:
    """Runs `llama-jax taint`."""
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    import tyro

    from llama_jax.cli.run_reader import read_config
    from llama_jax.observe.run_directory import RunDirectory
    from llama_jax.train.taint import Taint, add_taint, rows_between

    run_dir = Path(argv[0])
    prog = f"llama-jax taint {argv[0]}"
    options = tyro.cli(_Options, prog=prog, description=USAGE.partition("\n\n")[2], args=argv[1:])
    config = read_config(read_only_copy(run_dir))
    until = options.since + options.pass_over
    if options.since < 0 or options.pass_over < 0 or until > config.train.num_steps:
        raise ValueError(
            f"--since={options.since} and --pass-over={options.pass_over} must be updates of the "
            f"run, which has train.num_steps={config.train.num_steps}."
        )
    taint = Taint(
        since_step=options.since,
        passed_rows=rows_between(config, options.since, until),
        reason=options.reason,
        by="person",
    )
    with RunDirectory(run_dir) as folder:  # not under the feet of a run that is going on
        add_taint(folder.path, taint)
    print(f"{shown(run_dir)}: {taint}; start the run again to go back", file=sys.stderr)
    if options.json:
        print(json.dumps({"run_dir": shown(run_dir)} | dataclasses.asdict(taint)))
    return 0
