"""Versions with which a run was checked before it was launched, and those of the host it runs on.

What the doctor compiled, and what flags mean, holds for those versions alone. `launch` puts them
into `LLAMA_JAX_VERSIONS`, and `train` looks there.
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

NAME = "LLAMA_JAX_VERSIONS"
_PACKAGES = ("llama-jax", "jax", "jaxlib")
# In a checkout, and nowhere else.
_LOCK = Path(__file__).parents[2] / "requirements.lock"


def stated_here(*, tpu: bool) -> str:
    """The versions of this machine, of the packages that it has.

    Args:
        tpu: Whether the hosts have TPUs, and so their compiler; this machine may have it for them.
    """
    versions = {name: _installed(name) for name in (*_PACKAGES, *(["libtpu"] if tpu else []))}
    return " ".join(f"{name}=={version}" for name, version in versions.items() if version)


def differences_from_lock() -> list[str]:
    """Packages that this machine has in another version than the lock of its checkout."""
    if not _LOCK.is_file():
        return []
    lines = (line.partition(";")[0].strip() for line in _LOCK.read_text().splitlines())
    locked = dict(line.split("==") for line in lines if "==" in line)
    pairs = ((name, _installed(name), locked[name]) for name in _PACKAGES if name in locked)
    return [f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted]


def check(environment: Mapping[str, str]) -> None:
    """Refuses a host that has other versions than the launch was checked with.

    Raises:
        ValueError: If it has.
    """
    stated = dict(word.split("==") for word in environment.get(NAME, "").split())
    pairs = ((name, _installed(name) or "none", wanted) for name, wanted in stated.items())
    wrong = [f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted]
    if wrong:
        raise ValueError(
            f"{NAME}: this host has {'; '.join(wrong)}, with which the run was checked before it "
            "was launched: install the same on both, or launch with --no-same-versions."
        )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
