"""Objects of Google Cloud Storage and Amazon S3, through TensorStore; nothing else is needed.

    is_remote("gs://bucket/run")                  # a path may have been through pathlib, too
    objects = Objects(Url("s3://bucket/run"))
    objects.write("config.json", b"{}")           # whole, or not there at all
    objects.names(), objects.read("config.json")
    objects.replace("lease", b"...", ABSENT)      # None where there is one already

Credentials are found as the providers' own tools find them. A request that fails is made again,
with growing pauses, for about a minute and a half. `AWS_ENDPOINT_URL` names another store that
speaks S3, `AWS_REGION` its region; `TENSORSTORE_GCS_HTTP_URL` another that speaks GCS.

Source: https://google.github.io/tensorstore/kvstore/s3/index.html and .../gcs/index.html.
"""

import hashlib
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

# The generation of an object that is not there, as TensorStore calls it.
ABSENT = b"\x02"
_SCHEME = re.compile(r"(gs|s3):/+(?=[^/])")
_PIECE_BYTES = 64 << 20
_AHEAD = 16
_RETRIES = {"max_retries": 16, "initial_delay": "100ms", "max_delay": "8s"}


class StorageError(OSError):
    """A bucket did not do what it was asked, after all tries."""


class Url(PurePosixPath):
    """Place in a bucket, as `s3://bucket/run`; joined as paths are."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def key(self) -> str:
        """A name for a folder of this machine that no other place has."""
        return f"{self.name}-{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"


def is_remote(path: str | PurePath) -> bool:
    """Whether a path is in a bucket; pathlib may have made one slash of two."""
    return _SCHEME.match(str(path)) is not None


def located(path: str | PurePath) -> Path | Url:
    """The path as it is understood from any folder: a URL, or absolute."""
    return Url(path) if is_remote(path) else Path(path).absolute()


def shown(path: str | PurePath) -> str:
    """The path for people: a URL has both of its slashes."""
    return str(Url(path)) if is_remote(path) else str(path)


class Objects:
    """The objects below a place in a bucket, by their names relative to it.

    Args:
        url: Of the place.

    Raises:
        ValueError: If it names no bucket.
    """

    def __init__(self, url: Url):
        import tensorstore

        self.url = url
        self.spec = _spec(url)
        self._store = _done(tensorstore.KvStore.open(self.spec), f"{url} could not be opened")

    def names(self, *, skip: str = "") -> list[str]:
        """Names of the objects, sorted; those that consoles make for folders are left out.

        Args:
            skip: What begins like this is not asked for.

        Raises:
            StorageError: If the bucket cannot be listed, or a name leads out of any folder.
        """
        from tensorstore import KvStore

        spans = [KvStore.KeyRange()]
        if skip:
            after = skip[:-1] + chr(ord(skip[-1]) + 1)
            spans = [KvStore.KeyRange("", skip), KvStore.KeyRange(after, "")]
        found = [_done(self._store.list(span), f"{self.url} could not be listed") for span in spans]
        names = {name.decode() for names in found for name in names}
        if outside := [name for name in names if name[:1] == "/" or ".." in name.split("/")]:
            raise StorageError(
                f"{self.url} has an object {outside[0]!r}, which is no path: move it."
            )
        # Not every store keeps to the span.
        kept = (name for name in names if not (skip and name.startswith(skip)))
        return sorted(name for name in kept if name and not name.endswith("/"))

    def read(self, name: str) -> bytes | None:
        """Content of an object; None where there is none."""
        result = _done(self._store.read(name), f"{self.url / name} could not be read")
        return result.value if result.state == "value" else None

    def read_all(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """Content of several objects, in their order; a few are asked for ahead."""
        ahead: deque[Any] = deque()
        for place, name in enumerate(names):
            while len(ahead) < _AHEAD and place + len(ahead) < len(names):
                ahead.append(self._store.read(names[place + len(ahead)]))
            result = _done(ahead.popleft(), f"{self.url / name} could not be read")
            yield result.value if result.state == "value" else None

    def generation(self, name: str) -> bytes:
        """Of an object: changes with its content; `ABSENT` where there is none."""
        nothing = slice(0, 0)
        future = self._store.read(name, byte_range=nothing)
        return _done(future, f"{self.url / name} could not be read").stamp.generation

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, which is there as a whole or not at all."""
        self.write_all([(name, content)])

    def write_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Writes several, a few at a time; returns when all are stored."""
        started: deque[tuple[str, Any]] = deque()
        for name, content in objects:
            started.append((name, self._store.write(name, content)))
            if len(started) == _AHEAD:
                self._finish_write(*started.popleft())
        for name, future in started:
            self._finish_write(name, future)

    def _finish_write(self, name: str, future: Any) -> None:
        _done(future, f"{self.url / name} could not be written")

    def replace(self, name: str, content: bytes | None, generation: bytes) -> bytes | None:
        """Writes an object if its generation is still this one; deletes it if content is None.

        Returns:
            The new generation; None where another one was there, and nothing was done.
        """
        future = self._store.write(name, content, if_equal=generation)
        return _done(future, f"{self.url / name} could not be written").generation or None

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; those that are not there do not matter."""
        started = [(name, self._store.write(name, None)) for name in names]
        for name, future in started:
            _done(future, f"{self.url / name} could not be deleted")

    def fetch(self, name: str, path: Path, num_bytes: int) -> None:
        """Copies an object of a known size to a file, which is there as a whole or not at all.

        Raises:
            StorageError: If it has another size.
        """
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        what = f"{self.url / name} could not be read"
        try:
            with partial.open("wb") as file:
                for start in range(0, num_bytes, _PIECE_BYTES):
                    span = slice(start, min(start + _PIECE_BYTES, num_bytes))
                    file.write(_done(self._store.read(name, byte_range=span), what).value)
            if (found := partial.stat().st_size) != num_bytes:
                raise StorageError(f"{self.url / name} has {found:,} bytes, not {num_bytes:,}.")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _spec(url: Url) -> dict[str, Any]:
    """What TensorStore wants to be told of a place."""
    scheme, bucket, *inner = url.parts[0].removesuffix(":"), *url.parts[1:]
    spec = {"bucket": bucket, "path": "".join(f"{part}/" for part in inner)}
    if scheme == "gs":
        return spec | {"driver": "gcs", "context": {"gcs_request_retries": _RETRIES}}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    elif region:
        spec |= {"aws_region": region}
    context: dict[str, Any] = {"s3_request_retries": _RETRIES}
    if "AWS_ACCESS_KEY_ID" in os.environ:  # or it looks for files, and complains of each
        context["aws_credentials"] = {"type": "environment"}
    return spec | {"driver": "s3", "context": context}


def _done(future: Any, what: str) -> Any:
    try:
        return future.result()
    except Exception as error:
        lines = str(error).partition(" [")[0].strip().splitlines() or [type(error).__name__]
        raise StorageError(f"{what}: {lines[0][:300]}") from error
