"""A registry that answers as a test wants, and logins for one."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from xgen.spec.image import Reference, parse_reference

PASSWORD = "correct horse"  # a space and a colon must survive the header


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def login(home: Path, registry: str, user: str = "ann", password: str = PASSWORD) -> Path:
    """As `docker login` leaves it."""
    file = home / ".docker/config.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    return file


def reference(registry: str, tag: str = "25.06", repository: str = "team/trainer") -> Reference:
    return parse_reference(f"{registry}/{repository}:{tag}")


class answering:  # noqa: N801 - reads as a statement
    """A registry that says what a test makes it say; `asked` is (method, path, Authorization) of each request."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> None:
        asked: list[tuple[str, str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.command, self.path, self.headers.get("Authorization", "")))
                status, headers, body = answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._asked = asked

    def __enter__(self) -> tuple[str, list[tuple[str, str, str]]]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{self._server.server_port}", self._asked

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
