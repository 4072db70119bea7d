"""What is checked before anything starts; each refusal names the field, the rule and the fix."""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from llama_jax.aot.gpu_targets import GPU_TARGETS
from llama_jax.cli import versions
from llama_jax.cli.launch.buckets import check_data_of
from llama_jax.cli.launch.job import Job
from llama_jax.pods import parse_slices
from llama_jax.recipe import to_json
from llama_jax.remote.objects import is_remote, shown


def check_here(job: Job, *, num_devices: int) -> None:
    """Checks a run whose folder and data this machine can reach.

    Args:
        job: To launch.
        num_devices: Over all processes.

    Raises:
        ValueError: Naming what is wrong and how to put it right.
    """
    check_mesh(job, num_devices)
    check_run_dir(job.run_dir)
    for line in check_data(job):
        print(f"preflight: {line}", file=sys.stderr)


def check_mesh(job: Job, num_devices: int, num_slices: int = 1) -> None:
    """Refuses a mesh that the devices cannot form; says where slices split a copy of the model."""
    sizes = dataclasses.asdict(job.config.mesh)
    fixed = 1
    for size in sizes.values():
        fixed *= 1 if size == -1 else size
    if num_devices % fixed or (-1 not in sizes.values() and fixed != num_devices):
        wanted = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"{wanted} cannot be laid over {num_devices} devices: the sizes must multiply to that "
            "number. Set one axis to -1 to let it take the rest."
        )
    apart = job.config.mesh.replica * job.config.mesh.stage
    if apart % num_slices:
        print(
            f"preflight: mesh.replica * mesh.stage = {apart} splits a stage of the model over "
            f"slices, whose network is slow; --mesh.replica {num_slices} gives each a copy.",
            file=sys.stderr,
        )


def check_run_dir(run_dir: Path) -> None:
    """Refuses a folder that cannot be written and read back."""
    if is_remote(run_dir):
        raise ValueError(
            f"run_dir={shown(run_dir)}: the launcher's notes and logs need a file system; mount "
            "the bucket (Cloud Storage FUSE, Mountpoint for S3) and name the folder below it, or "
            "start `llama-jax train` on each host, which takes a bucket."
        )
    probe = run_dir / f".preflight-{os.getpid()}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe.write_text("written")
        if probe.read_text() != "written":
            raise OSError("what was written is not what is read")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"run_dir={run_dir} cannot be written and read back ({error}); name another folder, or "
            "give this user the right to write there."
        ) from error


def check_data(job: Job) -> list[str]:
    """Checks that all shards are there and whole; says how often each source is read.

    Raises:
        ValueError: If one is not.
    """
    config = job.config
    if config.stream is not None:
        return ["data: a stream of raw documents; what it holds is found while it is read"]
    if is_remote(config.data.directory):
        return check_data_of(job)
    if not config.data.directory:
        raise ValueError(
            "data.directory='' names no token shards; write some with `llama-jax data build`, and "
            "give --data.directory, or --stream."
        )
    from llama_jax.data.dataset import open_dataset

    dataset = open_dataset(
        config.data, vocab_size=config.model.vocab_size, batch_size=config.train.batch_size
    )
    num_steps = config.train.num_steps
    epochs = dataset.epochs(config.train.rows_before(num_steps))
    tokens = config.tokens_before(num_steps)
    read = ", ".join(f"{source} {count:.2f} times" for source, count in epochs.items())
    return [f"data: all shards are there; {tokens:,} tokens of training read {read}"]


def check_tools(*programs: str) -> None:
    """Refuses to begin what a program would be missing for in the middle."""
    for program in programs:
        if shutil.which(program) is None:
            raise ValueError(
                f"{program} is not installed here; install it, or take --dry-run's output to a "
                "machine that has it."
            )


def check_places(job: Job, below: str = "/") -> None:
    """Refuses paths that mean something else on another host.

    Args:
        job: To launch.
        below: Where the disk that all hosts share is mounted.

    Raises:
        ValueError: If a path is not below it.
    """
    for field, place in job.places.items():
        if "://" in place:  # means the same everywhere
            continue
        if not place:
            raise ValueError(
                f"{field}='' names no token shards; give a folder of the disk that all hosts "
                "share, a bucket, or --stream."
            )
        folder = PurePosixPath(place)
        if not folder.is_absolute() or not folder.is_relative_to(below):
            where = "begin with /" if below == "/" else f"lie below --mount={below}"
            raise ValueError(
                f"{field}={place!r} must {where}, or be in a bucket: every host reads and writes "
                "it on the disk they share."
            )


def on_disk(job: Job) -> list[str]:
    """Fields of what lies on the disk that all hosts share, and not in a bucket."""
    return [field for field, place in job.places.items() if "://" not in place]


def ask_doctor(job: Job, chips: str, *, num_chips: int) -> None:
    """Compiles the run's step for its chips, where the compiler is installed; takes minutes.

    Args:
        job: To launch.
        chips: --chips; empty for the --pod of the run.
        num_chips: That the platform is asked for.

    Raises:
        ValueError: If the doctor says that the run would fail, or the chips are not so many.
    """
    if differences := versions.differences_from_lock():
        print(f"preflight: other than requirements.lock: {'; '.join(differences)}", file=sys.stderr)
    if not (named := chips or job.pod):
        _say_not_asked("--chips names none (h100:64)")
        return
    slices = parse_slices(named, "--chips" if chips else "--pod")
    if slices.num_chips != num_chips:
        raise ValueError(f"--chips={named} are {slices.num_chips}, and {num_chips} are asked for.")
    chip = slices.pod.chip
    tpu = chip.device_kinds[0].startswith("tpu")
    if not tpu and chip.name not in GPU_TARGETS:
        _say_not_asked(f"{chip.name} is no GPU that it knows; they are {', '.join(GPU_TARGETS)}")
        return
    library, extra = ("libtpu", "tpu") if tpu else ("jax_cuda12_plugin", "cuda")
    if importlib.util.find_spec(library) is None:
        _say_not_asked(f"{library} is not installed here: pip install 'llama-jax[{extra}]'")
        return
    pod = f"{chip.name}:{slices.pod.topology or slices.pod.count}"
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "config.json"
        recipe.write_text(to_json(job.config), encoding="utf-8")
        doctor = [sys.executable, "-m", "llama_jax.cli.main", "doctor", str(recipe)]
        code = subprocess.run(  # noqa: S603 (our own command)
            [*doctor, "--topology", pod, "--slices", str(slices.count)],
            stdout=sys.stderr,
            check=False,
        ).returncode
    if code:
        raise ValueError(
            f"--chips={pod}*{slices.count}: the doctor says that this run would fail there, "
            "for the reason above. Change what it names, or launch with --no-doctor."
        )


def _say_not_asked(why: str) -> None:
    print(f"preflight: the doctor was not asked, for {why}", file=sys.stderr)
