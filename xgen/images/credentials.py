"""Who we are to a registry: what `docker login` and `podman login` left in the user's files. Never printed."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_DOCKER_IO_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Login:
    """A user's name and secret for one registry, and the file that they stand in."""

    file: Path
    user: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def login_files(env: Mapping[str, str], home: Path) -> list[Path]:
    """In the order that podman and skopeo read them (containers-auth.json(5))."""
    files = []
    if env.get("REGISTRY_AUTH_FILE"):
        return [Path(env["REGISTRY_AUTH_FILE"])]
    if env.get("XDG_RUNTIME_DIR"):
        files.append(Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    files.append(home / ".config/containers/auth.json")
    files.append(Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json")
    return files


def find_login(registry: str, repository: str, env: Mapping[str, str] | None = None) -> Login | None:
    """The login of a registry, or of the longest part of the repository that has one; None for an anonymous user."""
    for file in login_files(os.environ if env is None else env, Path.home()):
        try:
            known = json.loads(file.read_text(encoding="utf-8"))["auths"]
            entries = {key: value["auth"] for key, value in known.items() if value.get("auth")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for key in _keys(registry, repository):
            login = _decode(file, entries[key]) if key in entries else None
            if login is not None:
                return login
    return None


def kept_by_a_helper(registry: str, env: Mapping[str, str] | None = None) -> str:
    """The program that keeps the secret instead of the file, '' for none."""
    for file in login_files(os.environ if env is None else env, Path.home()):
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            name = known.get("credHelpers", {}).get(registry) or known.get("credsStore")
        except (OSError, ValueError, AttributeError):
            continue
        if name:
            return f"docker-credential-{name}"
    return ""


def _keys(registry: str, repository: str) -> list[str]:
    parts = repository.split("/")
    paths = ["/".join((registry, *parts[:count])) for count in range(len(parts), -1, -1)]
    return [
        *paths,
        f"https://{registry}",
        f"https://{registry}/v2/",
        *(_DOCKER_IO_KEYS if registry == "docker.io" else ()),
    ]


def _decode(file: Path, auth: str) -> Login | None:
    try:
        user, colon, password = base64.b64decode(auth).decode().partition(":")
    except ValueError:
        return None
    return Login(file, user, password.rstrip("\0")) if colon else None
