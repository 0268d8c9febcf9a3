"""A proxy before a real server, that slows it down or lets it fail in a given way."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx


class Proxy:
    """Passes /v1/completions on, message by message, `pause` seconds apart. `fault`, `after` so many messages:

    cut: the connection is closed; hang: nothing more comes; error: the server says that it has failed; garbage: what
    comes is no JSON; early: the answer ends as if it were whole; and at once: refuse (no connection), busy (503),
    reject (400).
    """

    def __init__(self, target: str, *, pause: float = 0.0, fault: str | None = None, after: int = 0) -> None:
        self.pause, self.fault, self.after = pause, fault, after
        self.requests = self.now = self.most = 0
        self._target, self._lock, self._over = target, threading.Lock(), threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with proxy._lock:
                    proxy.requests += 1
                    proxy.now += 1
                    proxy.most = max(proxy.most, proxy.now)
                try:
                    with suppress(OSError, httpx.HTTPError):
                        proxy._pass(self)
                finally:
                    with proxy._lock:
                        proxy.now -= 1

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if self.fault == "refuse":
            handler.close_connection = True
            handler.connection.close()
            return
        if self.fault in ("busy", "reject"):
            handler.send_response(503 if self.fault == "busy" else 400)
            handler.end_headers()
            handler.wfile.write(b"no good")
            return
        headers = {"Content-Type": "application/json"}
        with httpx.stream("POST", f"{self._target}{handler.path}", content=body, headers=headers, timeout=60) as answer:
            handler.send_response(answer.status_code)
            handler.end_headers()
            sent = 0
            for line in answer.iter_lines():
                if not line:
                    continue
                if self.fault and sent == self.after:
                    self._fail(handler)
                    return
                handler.wfile.write(line.encode() + b"\n\n")
                handler.wfile.flush()
                sent += 1
                time.sleep(self.pause)

    def _fail(self, handler: BaseHTTPRequestHandler) -> None:
        match self.fault:
            case "hang":
                self._over.wait(30)
            case "error":
                handler.wfile.write(b'data: {"error": "out of memory"}\n\n')
            case "garbage":
                handler.wfile.write(b"data: {not json\n\n")
            case "early":
                handler.wfile.write(b"data: [DONE]\n\n")
            case _:
                handler.connection.close()
