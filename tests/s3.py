"""An S3 server on this machine, and one in front of it that fails, is slow, and drops connections."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}
BUCKET = "kernels"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        connection = http.client.HTTPConnection(host, port, timeout=20)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def storage(url: str) -> Any:
    """What asks for the objects under a URL, without our code."""
    import obstore

    return obstore.store.from_url(url, client_options={"allow_http": True})


def objects_of(url: str) -> dict[str, bytes]:
    """All objects under a URL."""
    import obstore

    store = storage(url)
    names = [one["path"] for some in obstore.list(store) for one in some]
    return {name: bytes(obstore.get(store, name).bytes()) for name in names}


class FaultyProxy:
    """What stands between a client and a server: of the requests, a share fails, by a seed.

    `faults` counts what was done to them. `unconditional`: the server does not look at conditions.
    """

    def __init__(self, server: str, *, share: float = 0.0, seed: int = 0, unconditional: bool = False) -> None:
        self._server = server.removeprefix("http://")
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self.share, self.unconditional = share, unconditional
        self.faults: Counter[str] = Counter()

    def fault(self) -> str:
        """What happens to the next request; nothing for the empty word."""
        with self._lock:
            happens = self._random.random() < self.share
            kinds = ("500", "503", "slow", "lost before", "lost within", "lost after")
            kind = kinds[self._random.integers(len(kinds))] if happens else ""
            self.faults[kind] += 1
            return kind

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its own address."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = proxy.fault()
                if kind == "slow":
                    time.sleep(0.2)
                elif kind in ("500", "503"):
                    self.send_response(int(kind))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                elif kind == "lost before":
                    self.close_connection = True
                    return
                headers = dict(self.headers)
                if proxy.unconditional:
                    headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
                connection = http.client.HTTPConnection(proxy._server, timeout=20)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                if kind == "lost after":  # it was done, and nobody hears of it
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if kind == "lost within" and len(content) > 1:
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815 - named by the library

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
