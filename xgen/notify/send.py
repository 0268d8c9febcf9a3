"""One message to one place, within a bounded time. No error text has a URL or a password in it."""

from __future__ import annotations

import http.client
import os
import smtplib
import socket
import ssl
import stat
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from xgen.spec.notify import Smtp

_ANSWER = 10.0  # seconds for each answer of the other side
_WHOLE = 20.0  # seconds for all of them: one that sends a letter now and then must not hold us
_SENDMAIL = "/usr/sbin/sendmail"


class SendError(Exception):
    """Why a message did not go out: one line, without secrets."""


def read_secret(file: str) -> str:
    """The first line of a file that others cannot read. Raises SendError."""
    path = Path(file).expanduser()
    try:
        # A pipe that nobody writes to would hold up whoever sends, and all that waits behind this message.
        with open(path, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SendError(f"{file} is no regular file; write the path of one")
            if mode & stat.S_IRWXO:
                raise SendError(f"{file} is open to others (mode {mode & 0o777:o}); write chmod 600 {file}")
            line = opened.readline(4096).strip()
    except OSError as error:
        raise SendError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SendError(f"{file}: its first line is no text") from None
    if not line:
        raise SendError(f"{file}: its first line is empty")
    return line


def read_url(file: str) -> str:
    """Raises SendError."""
    url = read_secret(file)
    if not url.lower().startswith(("https://", "http://")) or any(c.isspace() or not c.isprintable() for c in url):
        raise SendError(f"{file}: its first line is no http:// or https:// URL")
    return url


def post(url: str, payload: bytes) -> None:
    """POST some JSON. Raises SendError unless the answer is 2xx."""

    def send() -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "xgen"}
        request = urllib.request.Request(url, payload, headers)
        with _OPENER.open(request, timeout=_ANSWER):
            pass

    try:
        _within(_WHOLE, send)
    except urllib.error.HTTPError as error:
        error.close()
        raise SendError(f"HTTP {error.code}{' (it redirects)' if 300 <= error.code < 400 else ''}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SendError(_said(error)) from None


def mail(message: EmailMessage, smtp: Smtp | None) -> None:
    """By a server, or by sendmail. Raises SendError."""
    try:
        _within(_WHOLE, lambda: _by_server(message, smtp) if smtp else _by_sendmail(message))
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise SendError(_said(error)) from None


def _by_server(message: EmailMessage, smtp: Smtp) -> None:
    context = ssl.create_default_context() if smtp.tls != "none" else None
    if smtp.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=_ANSWER, context=context)
    else:
        server = smtplib.SMTP(smtp.host, smtp.port, timeout=_ANSWER)
    with server:
        if smtp.tls == "starttls":
            server.starttls(context=context)
        if smtp.login:
            user, _, password = read_secret(smtp.login.file).partition(":")
            server.login(user, password)
        server.send_message(message)


def _by_sendmail(message: EmailMessage) -> None:
    try:
        done = subprocess.run(
            [_SENDMAIL, "-t", "-i"], input=message.as_bytes(), capture_output=True, timeout=_ANSWER, check=False
        )
    except FileNotFoundError:
        raise SendError(f"no {_SENDMAIL} here; write notify.smtp: {{host: …}} into the cluster profile") from None
    except subprocess.TimeoutExpired:
        raise SendError(f"{_SENDMAIL} did not end within {_ANSWER:.0f} s") from None
    if done.returncode:
        raise SendError(f"{_SENDMAIL} exited with {done.returncode}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Followed, a POST becomes a GET, and the message is lost without an error."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Raises what the work raises, or TimeoutError; what hangs on is left behind in a thread that holds nobody up."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by the other thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if failed:
        raise failed[0]


def _said(error: BaseException) -> str:
    """Of the texts of these errors some quote what was sent; only the safe parts are repeated."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP {error.smtp_code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLError):
        return f"TLS: {reason.reason or type(reason).__name__}"
    if isinstance(reason, socket.gaierror):
        return "its host has no address"
    if isinstance(reason, TimeoutError):
        return f"no answer within {_WHOLE:.0f} s"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__
