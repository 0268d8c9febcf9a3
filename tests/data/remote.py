"""An S3 server on this machine, reached through a wire that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Wire:
    """Connections to `target`; each ends after `limit` bytes of answers, unless that is 0."""

    target: tuple[str, int]
    limit: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                for source, sink, answers in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(source, sink, answers), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if answers and 0 < self.limit < passed:
                    sink.sendall(data[: len(data) - (passed - self.limit)])
                    break
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@dataclass
class Bucket:
    """s3://NAME, its client, and the wire that file systems reach it by."""

    name: str
    client: Any
    wire: Wire

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def upload(self, folder: Path, prefix: str) -> str:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.client.upload_file(str(path), self.name, f"{prefix}/{path.relative_to(folder)}")
        return f"{self.url}/{prefix}"


@contextlib.contextmanager
def s3_server(environ: Any) -> Iterator[Bucket]:
    """`environ.setenv` makes it the one that s3fs reaches, in this process and its children."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    wire = Wire(server.get_host_and_port())
    threading.Thread(target=wire.serve, daemon=True).start()
    settings = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "AWS_ENDPOINT_URL": wire.address, "AWS_MAX_ATTEMPTS": "1"}.items():
        environ.setenv(name, value)
    client = boto3.client("s3", endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
    client.create_bucket(Bucket="raw")
    s3fs.S3FileSystem.clear_instance_cache()  # one of another server would be taken, for its arguments are the same
    try:
        yield Bucket("raw", client, wire)
    finally:
        wire.listener.close()
        server.stop()
