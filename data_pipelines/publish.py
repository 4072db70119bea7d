"""A dataset behind a URL: built here, then sent there, `build.json` last.

Through fsspec, as raw files are read: a dataset may go to hf:// and wherever else it writes.
`llama_jax.remote`, for runs, knows gs:// and s3:// alone, and needs no package beside TensorStore.
"""

import concurrent.futures
import json
import shutil
from pathlib import Path
from typing import Any

from llama_jax.config import BuildConfig
from llama_jax.data.shards import BUILD

from . import output
from .engine import Executor, in_this_process
from .listeners import Reporter
from .runner import build

# In --work; the files in it are links to those of the tasks.
_FOLDER = "publish"
_DATASET = "dataset"
# Lies there as long as a dataset is on its way, and says which: files of the same names may be
# another one's.
_MARKER = ".publishing.json"
_THREADS = 8


def build_and_publish(
    config: BuildConfig,
    url: str,
    reporter: Reporter,
    *,
    work: Path,
    run: Executor = in_this_process,
    max_bad_records: int | None = None,
) -> tuple[dict[str, Any], bool]:
    """Builds a dataset in `work` and sends it to where fsspec writes.

    Stopped at any moment, it goes on: what has arrived is not sent again. Of one URL and several
    `work` folders, the last to begin wins.

    Args:
        config: The recipe.
        url: Such as "gs://bucket/folder".
        reporter: Is told how far it is.
        work: See `build`.
        run: See `build`.
        max_bad_records: See `build`.

    Returns:
        The contents of `build.json`, and whether they were there already.

    Raises:
        ValueError: As `build`, or if what lies there is something else, or cannot be written.
    """
    output.refuse_where_inputs_are(config, "--out", url)
    there = _Folder(url)
    if (summary := there.finished(config)) is not None:
        return summary, True
    ours = work / _FOLDER
    ours.mkdir(parents=True, exist_ok=True)
    with output.lock(ours, "--work"):
        dataset = ours / _DATASET
        try:
            output.finished(config, dataset)
        except output.AnotherConfigError:  # which never arrived; its tasks are kept
            shutil.rmtree(dataset)
        summary, _ = build(
            config, dataset, reporter, run=run, work=work, max_bad_records=max_bad_records
        )
        there.publish(dataset, reporter)
        shutil.rmtree(dataset)
    return summary, False


class _Folder:
    """Where a dataset goes."""

    def __init__(self, url: str):
        import fsspec

        self._url = url.rstrip("/")
        try:
            self._system, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"--out={url}: {error}") from error

    def finished(self, config: BuildConfig) -> dict[str, Any] | None:
        """The contents of `build.json`, if it is there and of this config."""
        try:
            text = self._read(BUILD)
        except Exception as error:
            raise ValueError(
                f"--out={self._url}: cannot be read ({type(error).__name__}: {error})."
            ) from error
        return None if text is None else output.checked_summary(text, config, self._url)

    def publish(self, dataset: Path, reporter: Reporter) -> None:
        """Sends files that are not there yet, `build.json` after all others."""
        files = {
            path.relative_to(dataset).as_posix(): path.stat().st_size
            for path in sorted(dataset.rglob("*"))
            if path.is_file() and not path.relative_to(dataset).parts[0].startswith(".")
        }
        reporter.stage("publish", sum(files.values()))
        try:
            self._begin(dataset, files)
            self._send(dataset, {n: size for n, size in files.items() if n != BUILD}, reporter)
            self._send(dataset, {BUILD: files[BUILD]}, reporter)
            self._system.rm_file(self._path(_MARKER))
        except ValueError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise ValueError(
                f"--out={self._url}: cannot be written ({type(error).__name__}: {error}). What is "
                "built is kept; run the build again to go on."
            ) from error

    def _begin(self, dataset: Path, files: dict[str, int]) -> None:
        """Leaves a marker; removes what another dataset has left on its way there."""
        # Every dataset that was put together is another one: a change of code may change its bytes.
        stamp = str((dataset / BUILD).stat().st_mtime_ns)
        marker = {"dataset": stamp, "files": list(files)}
        text = self._read(_MARKER)
        before = json.loads(text) if text else {"files": []}
        if before == marker:
            return
        found = self._found()
        if foreign := sorted(found.keys() - before["files"] - {_MARKER}):
            raise ValueError(
                f"--out={self._url} is not empty: it has {', '.join(foreign[:5])}. Build into a "
                "folder of its own."
            )
        for name in found.keys() - {_MARKER}:
            self._system.rm_file(self._path(name))
        self._system.pipe_file(self._path(_MARKER), json.dumps(marker).encode())

    def _send(self, dataset: Path, files: dict[str, int], reporter: Reporter) -> None:
        found = self._found()
        missing = [name for name, size in files.items() if found.get(name) != size]
        reporter.advance("publish", sum(files[name] for name in files.keys() - missing))
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            sent = {
                threads.submit(self._system.put_file, str(dataset / name), self._path(name)): name
                for name in missing
            }
            try:
                for future in concurrent.futures.as_completed(sent):
                    future.result()
                    reporter.advance("publish", files[sent[future]])
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        found = self._found()
        if wrong := [name for name, size in files.items() if found.get(name) != size]:
            raise ValueError(
                f"--out={self._url}: {wrong[0]} was sent and is not there, or is of another size; "
                "run the build again."
            )

    def _found(self) -> dict[str, int]:
        """Sizes of all that lies there."""
        self._system.invalidate_cache()
        if not self._system.exists(self._root):
            return {}
        below = len(self._root.rstrip("/")) + 1
        entries = self._system.find(self._root, detail=True)
        return {path[below:]: entry["size"] for path, entry in entries.items()}

    def _read(self, name: str) -> str | None:
        try:
            return self._system.cat_file(self._path(name)).decode()
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
