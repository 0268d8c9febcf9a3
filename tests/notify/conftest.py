"""A run that has somebody to tell, a real HTTP server, and a real mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from xgen.runs import EventWriter, RunDir
from xgen.spec import Profile

TOKEN = "T0K3N-of-the-hook"


@dataclass
class Hook:
    """Answers with `status`, and keeps what it got."""

    url: str = ""
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    kept = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.paths.append(self.path)
            kept.got.append(json.loads(body))
            self.send_response(kept.status)
            if 300 <= kept.status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        kept.url = f"http://127.0.0.1:{server.server_port}/services/{TOKEN}"
        yield kept
        server.shutdown()
        thread.join(60)


@dataclass
class Mails:
    port: int = 0
    got: list[str] = field(default_factory=list)  # whole conversations


@pytest.fixture
def mails() -> Iterator[Mails]:
    """A mail server, as much of RFC 5321 as a client needs."""
    kept = Mails()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            said = ""
            for line in self.rfile:
                said += line.decode()
                command = line.strip().upper()
                if command == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    for part in self.rfile:
                        said += part.decode()
                        if part == b".\r\n":
                            break
                elif command == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    break
                self.wfile.write(b"250 ok\r\n")
            kept.got.append(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        kept.port = server.server_address[1]
        yield kept
        server.shutdown()
        thread.join(60)


def write_secret(file: Path, text: str) -> Path:
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return file


SPEC = """\
spec_version: 1
kind: command
name: told
project: nlp
command: [sleep, '1']
resources: {nodes: 1, gpus_per_node: 0, time: 5m}
lead: 30s
"""


def make_run(root: Path, name: str = "told-aaaaaa", notify: dict[str, Any] | None = None) -> RunDir:
    run = RunDir(root / name)
    run.create()
    run.spec_file.write_text(SPEC + (yaml.safe_dump({"notify": notify}) if notify else ""))
    EventWriter(run, "client", 0, "7").write("queued")
    return run


def profile(root: Path, **keys: Any) -> Profile:
    return Profile.model_validate(
        {"scheduler": "local", "run_root": str(root), "partitions": {"gpu": {}}, "gpus": {"request": "none"}, **keys}
    )
