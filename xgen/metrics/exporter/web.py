"""`/metrics`, `/sd` and `/-/healthy`, with TLS and basic auth where the profile asks for them."""

from __future__ import annotations

import base64
import hmac
import ssl
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import gzip_accepted

from xgen.metrics.exporter.exporter import Exporter
from xgen.metrics.exporter.targets import Targets

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
_TEXT = "text/plain; charset=utf-8"
_INDEX = b"xgen exporter: /metrics for Prometheus, /sd for its http_sd, /-/healthy\n"


class SetupError(Exception):
    """The profile asks for what cannot be served; the text names the key and what to write."""


class App:
    """WSGI. Answers from memory only. Without `users`, whoever reaches the port may read."""

    def __init__(self, exporter: Exporter, targets: Targets | None, users: Mapping[str, str] | None = None) -> None:
        self._exporter, self._targets, self._users = exporter, targets, users

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = self._answer(environ)
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        path, text = environ["PATH_INFO"], [("Content-Type", _TEXT)]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [*text, ("Allow", "GET, HEAD")], b"write GET\n"
        if path == "/-/healthy":  # for a probe, which has no password; it tells nothing
            return "200 OK", text, b"healthy\n"
        if self._users is not None and not _known(environ.get("HTTP_AUTHORIZATION", ""), self._users):
            challenge = ("WWW-Authenticate", 'Basic realm="xgen exporter"')
            return "401 Unauthorized", [*text, challenge], b"name and password, please\n"
        if path == "/metrics":
            gzip = gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", ""))
            encoding = [("Content-Encoding", "gzip")] if gzip else []
            headers = [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4), ("Vary", "Accept-Encoding"), *encoding]
            return "200 OK", headers, self._exporter.page(gzip)
        if path == "/sd" and self._targets is not None:
            if self._exporter.pollers[self._targets.name].part() is None:
                # Prometheus keeps the targets it has. An empty list would end them, and their alerts.
                return "503 Service Unavailable", text, b"the announced runs cannot be read now\n"
            return "200 OK", [("Content-Type", "application/json")], self._targets.body
        return ("200 OK", text, _INDEX) if path == "/" else ("404 Not Found", text, _INDEX)


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For a server. Raises SetupError when the two are not a certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def password() -> str:  # else OpenSSL asks on the terminal, and waits
        raise SetupError(f"cluster profile: metrics.tls: {key} has a password; write a key without one")

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        raise SetupError(
            f"cluster profile: metrics.tls: {cert} and {key} are no certificate and its key: {reason}"
        ) from None
    except OSError as error:
        missing = key if cert.is_file() else cert
        raise SetupError(
            f"cluster profile: metrics.tls: {missing}: {error.strerror}; write a PEM file's path"
        ) from None
    return context


def read_users(file: Path) -> dict[str, str]:
    """Passwords by name, a line `name:password` each. Raises SetupError, also when others may read them."""
    place = f"cluster profile: metrics.basic_auth.file: {file}"
    try:
        if file.stat().st_mode & 0o077:
            raise SetupError(f"{place}: others may read the passwords in it; write: chmod 600 {file}")
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise SetupError(f"{place}: {error.strerror}; write a file of lines name:password") from None
    except UnicodeDecodeError:
        raise SetupError(f"{place}: is no UTF-8; write a file of lines name:password") from None
    users = dict(line.split(":", 1) for line in lines if ":" in line)
    if len(users) < len(lines) or not users or not all(users) or not all(users.values()):
        raise SetupError(f"{place}: write one line name:password for each user, and each name once")
    return users


def _known(header: str, users: Mapping[str, str]) -> bool:
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:  # not ASCII, no base64, or no UTF-8 in it
        return False
    # As long for a name that there is not: an answer's time must not tell.
    same = hmac.compare_digest(password.encode(), users.get(name, "").encode())
    return same and name in users
