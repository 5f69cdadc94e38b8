"""The server's door: requests, uploads, and the ways in which a server can fail."""

import gzip
import json
import re
import threading
import urllib.parse
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.wandb_server.graphql import Query
from tests.wandb_server.state import State
from tests.wandb_server.views import Views

KEY = "a" * 40  # any of this length
STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
ERROR = {"data": None, "errors": [{"message": "out of order"}]}


class Fault(Enum):
    """`SILENT`: takes requests and never answers. `DEAD`: drops them. `REFUSES_ARTIFACTS`: an error to each such call.
    `FULL`: nothing can be stored."""

    SILENT = "silent"
    DEAD = "dead"
    REFUSES_ARTIFACTS = "refuses artifacts"
    FULL = "full"


class WandbServer(State):
    """`fault` can be set at any time; None heals it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fault: Fault | None = None
        self.requests = 0
        self.closed = threading.Event()
        self.views = Views(self)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"server_state": self}))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # a dropped connection is not worth a traceback
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._http.shutdown()
        self._http.server_close()

    def graphql(self, given: dict[str, Any]) -> dict[str, Any]:
        query, roots = Query(given["query"]), self.views.roots()
        self.unknown.update(name for name in query.roots if name not in roots)
        if self.fault is Fault.REFUSES_ARTIFACTS and any("Artifact" in name for name in query.roots):
            return ERROR
        return {"data": query.answer(roots, given.get("variables") or {})}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        state = self.server_state
        body, path = self._body(), urllib.parse.unquote(self.path.partition("?")[0])
        with state.lock:
            state.requests += 1
        if state.fault is Fault.SILENT:
            while state.fault is Fault.SILENT and not state.closed.wait(0.1):
                pass
        if state.fault in (Fault.SILENT, Fault.DEAD):
            self.close_connection = True
            return
        with state.lock:
            status, answer = self._answer(path, body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b"".join(iter(self._chunk, b""))
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline().partition(b";")[0], 16))
        self.rfile.readline()
        return data

    def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        state = self.server_state
        place = path.removeprefix("/storage/")
        if path == "/graphql":
            return 200, json.dumps(state.graphql(json.loads(body))).encode()
        if state.fault is Fault.FULL and (self.command == "PUT" or STREAM.fullmatch(path)):
            return 507, b"{}"
        if match := STREAM.fullmatch(path):
            state.stream(*match.groups(), json.loads(body))
            return 200, b"{}"
        if self.command == "PUT" and place != path:
            state.store(place, body)
            return 200, b""
        if place != path and (state.folder / place).is_file():
            return 200, (state.folder / place).read_bytes()
        state.unknown[f"{self.command} {path}"] += 1
        return 404, b"{}"
