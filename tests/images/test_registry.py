"""What a tag is now, asked of a real registry on loopback: open, with a password, with tokens."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import made
from tests.images.registries import PASSWORD, free_port, login, reference
from xgen.images.credentials import find_login, login_files
from xgen.images.errors import NotFoundError, UnauthorizedError
from xgen.images.importing import import_image
from xgen.images.progress import Silent
from xgen.images.registry import resolve_digest

BCRYPT = "$2y$05$"
needs_registry = made.needs("docker-registry")
pytestmark = pytest.mark.usefixtures("home")


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"docker-registry does not start: {log.read_text()[-500:]}")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts Debian's docker-registry and gives its address; `auth` is the section of its configuration."""
    running: list[subprocess.Popen[bytes]] = []

    def start(auth: dict[str, Any] | None = None, data: str = "data") -> str:
        port = free_port()
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(tmp_path / data)}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        if auth is not None:
            settings["auth"] = auth
        file = tmp_path / f"registry-{port}.yml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        log = tmp_path / f"registry-{port}.log"
        with log.open("w") as out:
            running.append(subprocess.Popen(["docker-registry", "serve", str(file)], stdout=out, stderr=out))
        wait_for(port, running[-1], log)
        return f"127.0.0.1:{port}"

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(10)


def send(method: str, url: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
    request = urllib.request.Request(url, data=body or None, method=method, headers={"Content-Type": kind})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return str(answer.headers.get("Location", ""))


def push(registry: str, repository: str, *tags: str, mark: bytes = b"") -> str:
    """Push the tiny image without a tool; returns the digest of its manifest."""
    contents = made.layers(mark)

    def put(blob: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = send("POST", f"http://{registry}/v2/{repository}/blobs/uploads/")
        send("PUT", f"{place}&{urllib.parse.urlencode({'digest': digest})}", blob)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(blob)}

    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": put(made.config_text(contents), "config.v1+json"),
            "layers": [put(blob, "layer.v1.tar") for blob in contents],
        }
    ).encode()
    for tag in tags:
        send("PUT", f"http://{registry}/v2/{repository}/manifests/{tag}", manifest, kind)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def push_index(registry: str, repository: str, tag: str, manifest_digest: str) -> str:
    """An index of one image, as images for several machines have."""
    url = f"http://{registry}/v2/{repository}/manifests/{manifest_digest}"
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        size = len(answer.read())
    kind = "application/vnd.oci.image.index.v1+json"
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest_digest,
        "size": size,
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
    send("PUT", f"http://{registry}/v2/{repository}/manifests/{tag}", index, kind)
    return f"sha256:{hashlib.sha256(index).hexdigest()}"


# --- an open registry


@needs_registry
def test_a_tag_is_the_digest_of_its_manifest_or_of_its_index(serve: Callable[..., str]) -> None:
    registry = serve()
    digest = push(registry, "team/trainer", "25.06")
    assert resolve_digest(reference(registry)) == digest
    index = push_index(registry, "team/trainer", "multi", digest)
    assert resolve_digest(reference(registry, "multi")) == index
    push(registry, "team/trainer", "25.06", mark=b", moved")
    assert resolve_digest(reference(registry)) != digest


@needs_registry
def test_a_tag_that_is_not_there_is_answered_with_the_nearest_first(serve: Callable[..., str]) -> None:
    registry = serve()
    push(registry, "team/trainer", "25.06-py3", "25.07-py3", "latest", *(f"old{i}" for i in range(20)))
    with pytest.raises(NotFoundError) as raised:
        resolve_digest(reference(registry, "25.6-py3"))
    head, _, tags = str(raised.value).partition("no tag 25.6-py3; write ")
    assert head == f"{registry}/team/trainer:25.6-py3: "
    assert tags.split(", ")[:2] == ["25.06-py3", "25.07-py3"]
    assert len(tags.split(", ")) == 8
    with pytest.raises(NotFoundError, match=r"has no team/other; write another name"):
        resolve_digest(reference(registry, "1", "team/other"))


@made.needs("docker-registry", "skopeo", "umoci", "mksquashfs")
def test_an_import_takes_what_the_digest_says_not_what_the_tag_became(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    registry = serve()
    digest = push(registry, "team/trainer", "25.06")
    images = tmp_path / "images"
    done = import_image(f"{registry}/team/trainer:25.06", images, ["folder", "sqsh"], Silent())
    assert (done.name, done.record.digest) == ("trainer-25.06", digest)
    assert done.record.source == f"{registry}/team/trainer:25.06@{digest}"
    push(registry, "team/trainer", "25.06", mark=b", moved")
    pinned = import_image(f"docker://{registry}/team/trainer@{digest}", images, ["tar"], Silent(), name="trainer-25.06")
    assert (pinned.made, pinned.notes) == (("tar",), ())
    moved = import_image(f"{registry}/team/trainer:25.06", images, ["folder"], Silent())
    assert moved.made == ("folder",)
    assert (images / "trainer-25.06/etc/motd").read_text() == "second, moved"
    assert [note.split(" ")[0] for note in moved.notes] == ["trainer-25.06", "trainer-25.06.sqsh", "trainer-25.06.tar"]


# --- logins


@pytest.fixture
def with_password(serve: Callable[..., str], tmp_path: Path) -> str:
    """A registry that wants ann's password in each request, with the image in it."""
    push(serve(), "team/trainer", "25.06")
    crypt = pytest.importorskip("crypt")  # gone in Python 3.13
    hashed = crypt.crypt(PASSWORD, BCRYPT + "abcdefghijklmnopqrstuu")
    if not (hashed or "").startswith(BCRYPT):
        pytest.skip("the C library has no bcrypt")
    (tmp_path / "htpasswd").write_text(f"ann:{hashed}\n")
    return serve({"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}})


@needs_registry
def test_a_password_of_docker_login_is_used_and_never_said(with_password: str, home: Path) -> None:
    with pytest.raises(UnauthorizedError, match=r"wants a login.*docker login 127\.0\.0\.1:\d+.*config\.json"):
        resolve_digest(reference(with_password))
    login(home, with_password)
    assert resolve_digest(reference(with_password)).startswith("sha256:")
    file = login(home, with_password, password="wrong secret")
    with pytest.raises(UnauthorizedError) as raised:
        resolve_digest(reference(with_password))
    assert f"refuses ann of {file}; log in again: docker login {with_password}" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(find_login(with_password, "team/trainer"))


@needs_registry
def test_the_file_that_the_environment_names_comes_first(
    with_password: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = login(home, with_password).rename(tmp_path / "auth.json")
    login(home, with_password, password="wrong secret")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert resolve_digest(reference(with_password)).startswith("sha256:")


class TokenServer:
    """Gives tokens for a registry to ann, and to nobody else (distribution-spec, token authentication)."""

    def __init__(self, folder: Path) -> None:
        self.key, self.certificate = folder / "key.pem", folder / "cert.pem"
        subject = ("-nodes", "-days", "1", "-subj", "/CN=test")
        files = ("-keyout", str(self.key), "-out", str(self.certificate))
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *files]
        subprocess.run(argv, check=True, capture_output=True)
        self.asked: list[tuple[str, str]] = []  # (query, Authorization)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((urllib.parse.urlsplit(self.path).query, self.headers.get("Authorization", "")))
                known = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
                ok = outer.asked[-1][1] == known
                body = json.dumps({"token": outer.token(outer.asked[-1][0])}).encode() if ok else b"{}"
                self.send_response(200 if ok else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def auth(self) -> dict[str, Any]:
        realm = f"http://127.0.0.1:{self.server.server_port}/token?from=test"
        bundle = str(self.certificate)
        return {"token": {"realm": realm, "service": "reg", "issuer": "test", "rootcertbundle": bundle}}

    def token(self, query: str) -> str:
        """A JSON web token signed by RS256, with what the query asks for."""
        asked = urllib.parse.parse_qs(query)
        kind, name, actions = asked["scope"][0].split(":")
        der = "".join(self.certificate.read_text().splitlines()[1:-1])
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": "test", "sub": "ann", "aud": asked["service"][0], "exp": now + 60, "nbf": now - 60, "iat": now,
            "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        text = ".".join(_b64url(json.dumps(part).encode()) for part in (head, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signed = subprocess.run(argv, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{_b64url(signed.stdout)}"


def _b64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@made.needs("docker-registry", "openssl")
def test_a_registry_with_tokens_gets_one_for_the_right_repository(
    serve: Callable[..., str], tmp_path: Path, home: Path
) -> None:
    digest = push(serve(), "team/trainer", "25.06")
    tokens = TokenServer(tmp_path)
    try:
        registry = serve(tokens.auth)
        login(home, registry)
        assert resolve_digest(reference(registry)) == digest
        assert len(tokens.asked) == 1
        asked = urllib.parse.parse_qs(tokens.asked[0][0])
        assert asked == {"from": ["test"], "service": ["reg"], "scope": ["repository:team/trainer:pull"]}
        with pytest.raises(NotFoundError, match=r"no tag 25\.6; write 25\.06$"):
            resolve_digest(reference(registry, "25.6"))
        (home / ".docker/config.json").unlink()
        with pytest.raises(UnauthorizedError, match="wants a login, or has no such image"):
            resolve_digest(reference(registry))
    finally:
        tokens.server.shutdown()


def test_logins_are_found_as_podman_finds_them(tmp_path: Path) -> None:
    def auth(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:a:b".encode()).decode()}

    file = tmp_path / "auth.json"
    entries = {"quay.io": auth("all"), "quay.io/team": auth("team"), "https://index.docker.io/v1/": auth("hub")}
    file.write_text(json.dumps({"auths": {**entries, "ghcr.io": {}, "nvcr.io": {"auth": "%%%"}}}))
    env = {"REGISTRY_AUTH_FILE": str(file)}

    def user(registry: str, repository: str) -> str | None:
        found = find_login(registry, repository, env)
        return found.user if found is not None else None

    assert [user("quay.io", r) for r in ("team/x", "team", "teams/x", "other/x")] == ["team", "team", "all", "all"]
    assert user("docker.io", "library/ubuntu") == "hub"
    assert [user(r, "x") for r in ("ghcr.io", "nvcr.io", "none.io")] == [None, None, None]
    login = find_login("quay.io", "team/x", env)
    assert login is not None
    assert base64.b64decode(login.basic.split()[1]) == b"team:a:b"
    assert find_login("quay.io", "x", {"REGISTRY_AUTH_FILE": str(tmp_path / "none")}) is None
    assert [str(f) for f in login_files({"XDG_RUNTIME_DIR": "/run/u"}, Path("/h"))] == [
        "/run/u/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json",
    ]  # fmt: skip
