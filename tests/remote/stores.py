"""Buckets on this machine: emulators that a test starts, and a gateway before them that may fail.

The emulator of Google's store is in `requirements.lock`; that of Amazon's, which is large, in
`requirements-parity.lock`.
"""

import contextlib
import dataclasses
import http.client
import http.server
import importlib.util
import json
import logging
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_jax.remote.objects import Url

BUCKET = "bucket"
_HOP_BY_HOP = ("transfer-encoding", "connection", "keep-alive", "content-length", "date", "server")


class Gateway(http.server.ThreadingHTTPServer):
    """Hands requests on to an emulator.

    Google's emulator does not know the bounds of a listing nor a write on a condition, and does
    not tell the generation of what is read; the gateway does, as Google's own store.

    Attributes:
        requests: Handed on or failed so far, retries included.
        failed: Answered with 503.
        fails: Whether the request of this number, counted from 1, is answered so.
    """

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.lock = threading.Lock()
        self.requests = self.failed = 0
        self.fails: Callable[[int], bool] = lambda number: False

    @property
    def address(self) -> str:
        """As clients want it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body that the emulator answers with."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            self.server.requests += 1
            fails = self.server.fails(self.server.requests)
            self.server.failed += fails
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if fails:
            self._answer(503, [], b"")
        elif "ifGenerationMatch" in query and not self._is_current(query):
            self._answer(412, [], b"")
        else:
            status, headers, answer = self.server.ask(
                self.command, self.path, body, dict(self.headers.items())
            )
            if query.keys() & {"startOffset", "endOffset"}:
                answer = _within(answer, query)
            if query.get("alt") == ["media"] and status < 300:
                headers.append(("x-goog-generation", self._generation(self.path)))
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on  # noqa: N815 (so is it called)

    def _is_current(self, query: dict[str, list[str]]) -> bool:
        """Whether the object has the generation that the request is made on."""
        path = urllib.parse.urlsplit(self.path).path
        if "name" in query:
            path = f"{path.removeprefix('/upload')}/{urllib.parse.quote(query['name'][0], safe='')}"
        return self._generation(path) == query["ifGenerationMatch"][0]

    def _generation(self, path: str) -> str:
        """Of an object; 0 where there is none."""
        status, _, answer = self.server.ask("GET", urllib.parse.urlsplit(path).path)
        return json.loads(answer)["generation"] if status == 200 else "0"

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        size = len(body)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                size = int(value)
        self.send_header("content-length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def _within(answer: bytes, query: dict[str, list[str]]) -> bytes:
    listing = json.loads(answer)
    start, end = (query.get(name, [""])[0] for name in ("startOffset", "endOffset"))
    listing["items"] = [
        item
        for item in listing.get("items", [])
        if item["name"] >= start and (not end or item["name"] < end)
    ]
    return json.dumps(listing).encode()


@contextlib.contextmanager
def google() -> Iterator[Gateway]:
    """A bucket of Google's store."""
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    # Port 0 would do, but the server does not tell which one it was given.
    emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    with emulator, _gateway(emulator._api._httpd.server_address[1]) as gateway:
        yield gateway


@contextlib.contextmanager
def amazon() -> Iterator[Gateway]:
    """A bucket of Amazon's store."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: `make .venv/parity` installs it")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    emulator = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    emulator.start()
    try:
        with _gateway(emulator.get_host_and_port()[1]) as gateway:
            # What an earlier emulator of this process was given is still there.
            gateway.ask("POST", "/moto-api/reset")
            gateway.ask("PUT", f"/{BUCKET}")
            yield gateway
    finally:
        emulator.stop()


@contextlib.contextmanager
def _gateway(port: int) -> Iterator[Gateway]:
    gateway = Gateway(port)
    thread = threading.Thread(target=gateway.serve_forever, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        gateway.shutdown()
        gateway.server_close()
        thread.join()


# Amazon's emulator is large and slow, and is installed with `make .venv/parity` alone.
STORES = ["gs", pytest.param("s3", marks=pytest.mark.long)]


@dataclasses.dataclass(frozen=True)
class Store:
    """An empty place in a bucket.

    Attributes:
        url: Of the place.
        gateway: Through which all requests go.
        environment: With which a process finds it.
    """

    url: Url
    gateway: Gateway
    environment: dict[str, str]


@contextlib.contextmanager
def open_store(scheme: str, folder: Path) -> Iterator[Store]:
    """Starts a store, and has this process and its children find it.

    Args:
        scheme: "gs" or "s3".
        folder: For files that are kept on this machine.
    """
    with {"gs": google, "s3": amazon}[scheme]() as gateway, pytest.MonkeyPatch.context() as patch:
        environment = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TENSORSTORE_GCS_HTTP_URL": gateway.address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
            "AWS_ENDPOINT_URL": gateway.address,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        yield Store(Url(f"{scheme}://{BUCKET}/run"), gateway, environment)
