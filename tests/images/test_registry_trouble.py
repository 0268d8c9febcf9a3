"""Registries that are away, hang, talk nonsense, or would have a password that is not theirs."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

import pytest

from tests.images.registries import answering, free_port, login, reference
from xgen.images.errors import UnauthorizedError, UnreachableError
from xgen.images.registry import resolve_digest
from xgen.spec.image import parse_reference

pytestmark = pytest.mark.usefixtures("home")


def test_a_password_is_not_sent_in_clear_text_to_another_host(home: Path) -> None:
    """A registry could name any realm; what is sent there must be safe on the way."""
    realm = 'Bearer realm="http://registry.invalid/token",service="reg"'
    with answering(lambda _: (401, {"WWW-Authenticate": realm}, b"")) as (registry, asked):
        login(home, registry)
        with pytest.raises(UnreachableError):
            resolve_digest(reference(registry), timeout=5)
        assert [(method, authorization) for method, _, authorization in asked] == [("HEAD", "")]


def test_no_registry_means_write_the_digest_or_import_elsewhere() -> None:
    with pytest.raises(UnreachableError) as raised:
        resolve_digest(reference(f"127.0.0.1:{free_port()}"))
    assert "Connection refused" in str(raised.value)
    assert "/team/trainer@sha256:…, or run xgen image import where there is network" in str(raised.value)


def test_a_registry_that_hangs_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="no answer"):
            resolve_digest(reference(f"127.0.0.1:{silent.getsockname()[1]}"), timeout=0.5)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_in_trouble_is_not_a_missing_tag(status: int) -> None:
    with (
        answering(lambda _: (status, {}, b"")) as (registry, _),
        pytest.raises(UnreachableError, match=f"it answered {status}"),
    ):
        resolve_digest(reference(registry))


def test_a_registry_that_says_no_digest_is_read_instead() -> None:
    body = b'{"schemaVersion": 2}'
    with answering(lambda _: (200, {"Content-Type": "application/json"}, body)) as (registry, asked):
        assert resolve_digest(reference(registry)) == f"sha256:{hashlib.sha256(body).hexdigest()}"
        assert [method for method, _, _ in asked] == ["HEAD", "GET"]


def test_a_registry_that_talks_nonsense_is_an_error_and_no_traceback() -> None:
    bearer = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/"'}
    for answer in ((401, {}, b""), (401, {"WWW-Authenticate": "Negotiate"}, b""), (401, bearer, b"")):
        with (
            answering(lambda _, answer=answer: answer) as (registry, _),
            pytest.raises((UnauthorizedError, UnreachableError)),
        ):
            resolve_digest(reference(registry))


def test_a_redirect_does_not_take_the_password_along(home: Path) -> None:
    digest = f"sha256:{'ab' * 32}"
    with answering(lambda _: (200, {"Docker-Content-Digest": digest}, b"{}")) as (other, asked):

        def first(path: str) -> tuple[int, dict[str, str], bytes]:
            return 307, {"Location": f"http://{other}{path}"}, b""

        with answering(first) as (registry, _):
            login(home, registry)
            assert resolve_digest(reference(registry)) == digest
        assert all(authorization == "" for _, _, authorization in asked)


def test_a_pinned_reference_asks_nobody() -> None:
    pinned = parse_reference(f"nowhere.invalid/x@sha256:{'ab' * 32}")
    assert resolve_digest(pinned, timeout=0) == pinned.digest
