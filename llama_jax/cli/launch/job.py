"""What is launched: a recipe with all its flags, read once for every platform."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TypeVar

from llama_jax.cli import train
from llama_jax.cli.launch.state import LaunchState, standing_of
from llama_jax.config import RunConfig, TokenizerFile
from llama_jax.remote.objects import shown

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run to launch.

    Attributes:
        platform: Such as "local".
        name: Of the run: the last part of its folder.
        config: Resolved, to check it before anything starts.
        run_dir: Folder of the run, as its processes will see it, or a place in a bucket.
        places: By field, what its processes read and write: paths or URLs.
        pod: That `--pod` lays the run over; empty where it is not given.
        json: Whether to print one JSON document on stdout, and nothing else there.
        train_argv: Arguments of `llama-jax train` in every process.
        argv: Of `llama-jax launch`.
    """

    platform: str
    name: str
    config: RunConfig
    run_dir: Path
    places: dict[str, str]
    pod: str
    json: bool = False
    train_argv: tuple[str, ...]
    argv: tuple[str, ...]


def parse_job(platform: str, argv: list[str], flags: type[T], usage: str) -> tuple[Job, T]:
    """Reads `RECIPE [flags of the platform] [flags of train]`.

    Args:
        platform: Named first on the command line.
        argv: What follows it.
        flags: Dataclass of the platform's flags.
        usage: What `--help` says first.

    Raises:
        ValueError: If the recipe or a value is wrong.
        SystemExit: Status 0 after `--help`, 2 where an option is unknown or unreadable.
    """
    prog = f"llama-jax launch {platform}"
    if not argv or argv[0].startswith("-"):
        asked = argv[:1] in (["-h"], ["--help"])
        print(usage, file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)
    import tyro

    recipe = argv[0]
    options, rest = tyro.cli(
        flags, prog=f"{prog} {recipe}", description=usage, args=argv[1:], return_unknown_args=True
    )
    config, training = train.parse([recipe, *rest], prog)
    # Of the launcher: its processes would each print one.
    rest = [word for word in rest if word not in ("--json", "--no-json")]
    run_dir = training.run_dir or Path("runs") / config.name
    job = Job(
        platform=platform,
        name=run_dir.name,
        config=config,
        run_dir=run_dir,
        places=_places(recipe, config, run_dir, training),
        pod=training.pod,
        json=training.json,
        train_argv=(recipe, *rest, *([] if training.run_dir else ["--run-dir", str(run_dir)])),
        argv=(platform, *argv),
    )
    return job, options


def print_dry_run(job: Job, text: str, **would_run: object) -> int:
    """Prints what would run: for people, or as one JSON document."""
    document = {"platform": job.platform, "name": job.name, "run_dir": job.places["--run-dir"]}
    as_json = json.dumps(document | {"phase": "dry run", "would_run": would_run})
    print(as_json if job.json else text.rstrip("\n"))
    return 0


def print_state(job: Job, folder: Path, code: int) -> int:
    """Prints how a launch stands, if JSON is asked for; returns `code`, the launcher's."""
    if job.json:
        document = dataclasses.asdict(LaunchState.load(folder))
        document |= dataclasses.asdict(standing_of(folder))
        print(json.dumps(document | {"exit_code": code}))
    return code


def _places(
    recipe: str, config: RunConfig, run_dir: Path, training: train.Options
) -> dict[str, str]:
    recipes = {"RECIPE": recipe, "--stream": training.stream}
    # Those that are files; the package's own are on every host.
    files = {field: name for field, name in recipes.items() if name.endswith((".py", ".json"))}
    places = {"--run-dir": shown(run_dir), **files}
    if training.init_from:
        places["--init-from"] = training.init_from
    if config.stream is None:
        return places | {"data.directory": config.data.directory}
    for source in config.stream.sources:
        if path := getattr(source, "path", ""):
            places[f"stream.sources.{source.name}.path"] = path
    if isinstance(config.stream.tokenizer, TokenizerFile):
        places["stream.tokenizer.path"] = config.stream.tokenizer.path
    return places
