"""An HTTP server for metrics: a thread per client, and no client that can hold up another."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

_CLIENT_TIMEOUT = 30.0  # seconds; a client that connects and says nothing must not hold a thread for ever
_MAX_CLIENTS = 64  # at once: each has a thread before it has said who it is


class Serving:
    """Answers on a port until it is closed. Raises OSError when the address is not this machine's, or taken."""

    def __init__(
        self, app: Callable[..., Any], address: str, port: int = 0, *, name: str, tls: ssl.SSLContext | None = None
    ) -> None:
        kind = _IPv6Server if ":" in address else _Server
        self._server = make_server(address, port, app, server_class=kind, handler_class=_Silent)
        self._server.tls = tls
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering; the server's thread has ended on return."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128  # socketserver keeps 5 waiting, and the next ones wait for a second
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any) -> None:
        self._room = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__(*args)

    def server_bind(self) -> None:
        # Not HTTPServer's: it looks up the host's full name, which can take half a minute where DNS is broken.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            return self.shutdown_request(request)
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            return super().finish_request(request, client_address)
        # Here, in the client's own thread, and not as it is accepted: a handshake that never ends holds up nobody.
        request.settimeout(_CLIENT_TIMEOUT)
        with self.tls.wrap_socket(request, server_side=True) as wrapped:
            return super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away or speaks no TLS is its own trouble, not a traceback in our log.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT
    wbufsize = -1  # wsgiref writes each header by itself

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is wsgiref's
        pass
