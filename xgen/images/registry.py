"""Asking a registry which image a tag is now: the manifest's digest (OCI distribution-spec), urllib only."""

from __future__ import annotations

import difflib
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

from xgen.images.commands import is_loopback
from xgen.images.credentials import Login, find_login, kept_by_a_helper
from xgen.images.errors import NotFoundError, RegistryError, UnauthorizedError, UnreachableError
from xgen.spec.image import Reference

__all__ = ["NotFoundError", "RegistryError", "UnauthorizedError", "UnreachableError", "resolve_digest"]

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_HOSTS = {"docker.io": "registry-1.docker.io"}
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_MAX_BODY = 8 * 2**20  # a manifest is at most 4 MiB (distribution-spec)
_TAG_PAGES = 5
_SAID_TAGS = 8


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


def resolve_digest(reference: Reference, timeout: float = 20.0) -> str:
    """'sha256:…' of the manifest that a tag leads to now; the digest itself of a pinned reference.

    `timeout` in seconds, for all of it. Raises NotFoundError, UnauthorizedError, UnreachableError.
    """
    return reference.digest or _Registry(reference, timeout).digest()


class _Registry:
    """One conversation with a registry about one repository."""

    def __init__(self, reference: Reference, timeout: float) -> None:
        self._reference = reference
        self._end = time.monotonic() + timeout
        self._timeout = timeout
        loopback = is_loopback(reference.registry)
        self._base = f"{'http' if loopback else 'https'}://{_HOSTS.get(reference.registry, reference.registry)}"
        # A proxy would look for this machine's registry on its own loopback.
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if loopback else []))
        self._login = find_login(reference.registry, reference.repository)
        self._authorization = ""

    def digest(self) -> str:
        path = f"/v2/{self._reference.repository}/manifests/{self._reference.tag}"
        answer = self._ask("HEAD", path)
        said = answer.headers.get("docker-content-digest", "")
        if answer.status != 404 and not (answer.status == 200 and _DIGEST.match(said)):
            answer = self._ask("GET", path)  # some registries answer HEAD with 405, some without the digest
            said = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        if answer.status == 404:
            raise NotFoundError(self._not_found())
        self._expect_ok(answer)
        return said

    def _not_found(self) -> str:
        tag = self._reference.tag
        tags = self._tags()
        if tags is None:
            return (
                f"{self._reference}: {self._reference.registry} has no {self._reference.repository}; write another name"
            )
        near = difflib.get_close_matches(tag, tags, _SAID_TAGS, 0.3)
        said = ", ".join([*near, *(t for t in reversed(tags) if t not in near)][:_SAID_TAGS])
        return f"{self._reference}: no tag {tag}; write {said}" if said else f"{self._reference}: it has no tag at all"

    def _tags(self) -> list[str] | None:
        """All tags, as far as the registry lists them; None where it knows no such repository."""
        path = f"/v2/{self._reference.repository}/tags/list?n=1000"
        tags: list[str] = []
        for page in range(_TAG_PAGES):
            try:
                answer = self._ask("GET", path)
                if answer.status != 200:
                    return None if page == 0 and answer.status == 404 else tags
                tags += json.loads(answer.body)["tags"] or []
            except (RegistryError, ValueError, KeyError, TypeError):
                return tags
            following = re.match(r"<([^>]+)>", answer.headers.get("link", ""))
            if following is None:
                break
            path = (
                urllib.parse.urlsplit(urllib.parse.urljoin(self._base, following[1]))
                ._replace(scheme="", netloc="")
                .geturl()
            )
        return tags

    def _ask(self, method: str, path: str) -> _Answer:
        """One request; logs in where the registry asks for it, once."""
        answer = self._send(method, self._base + path, self._authorization)
        if answer.status != 401 or self._authorization:
            return answer
        self._authorization = self._authorize(answer.headers.get("www-authenticate", ""))
        return self._send(method, self._base + path, self._authorization)

    def _authorize(self, challenge: str) -> str:
        """The Authorization header that the challenge of a 401 asks for; '' where we have nothing to say."""
        kind, _, rest = challenge.partition(" ")
        asked = dict(_PARAMETER.findall(rest))
        if kind.lower() == "basic" and self._login is not None:
            return self._login.basic
        if kind.lower() != "bearer" or "realm" not in asked:
            return ""
        realm = urllib.parse.urlsplit(asked.pop("realm"))
        # A registry must not be able to send a password anywhere in clear text.
        login: Login | None = self._login if realm.scheme == "https" or is_loopback(realm.netloc) else None
        asked.pop("error", None)
        asked.setdefault("scope", f"repository:{self._reference.repository}:pull")
        query = "&".join(part for part in (realm.query, urllib.parse.urlencode(asked)) if part)
        answer = self._send("GET", realm._replace(query=query).geturl(), login.basic if login is not None else "")
        if answer.status in (401, 403):
            raise UnauthorizedError(self._unauthorized())
        self._expect_ok(answer)
        try:
            document = json.loads(answer.body)
            return f"Bearer {document.get('token') or document['access_token']}"
        except (ValueError, KeyError, AttributeError):
            raise UnreachableError(self._unreachable(f"{realm.netloc} gave no token")) from None

    def _send(self, method: str, url: str, authorization: str) -> _Answer:
        request = urllib.request.Request(url, method=method, headers={"Accept": _ACCEPT, "User-Agent": "xgen"})
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        left = self._end - time.monotonic()
        if left <= 0:
            raise UnreachableError(self._unreachable(f"no answer within {self._timeout:.0f} s"))
        try:
            with self._opener.open(request, timeout=left) as response:
                return _Answer(response.status, _lower(response.headers), response.read(_MAX_BODY))
        except urllib.error.HTTPError as error:
            with error:
                return _Answer(error.code, _lower(error.headers), b"")
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            said = "no answer in time" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__
            raise UnreachableError(self._unreachable(said)) from None

    def _expect_ok(self, answer: _Answer) -> None:
        if answer.status in (401, 403):
            raise UnauthorizedError(self._unauthorized())
        if answer.status != 200:
            raise UnreachableError(self._unreachable(f"it answered {answer.status}"))

    def _unreachable(self, why: str) -> str:
        return (
            f"{self._reference}: {self._reference.registry} did not say which image this is ({why}); write its digest, "
            f"{self._reference.registry}/{self._reference.repository}@sha256:…, or run xgen image import where there "
            "is network"
        )

    def _unauthorized(self) -> str:
        registry = self._reference.registry
        if self._login is not None:
            who = f"{self._login.user} of {self._login.file}"
            return f"{self._reference}: {registry} refuses {who}; log in again: docker login {registry}"
        helper = kept_by_a_helper(registry)
        if helper:
            why = f"wants a login; {helper} keeps it, which xgen does not ask"
            return f"{self._reference}: {registry} {why}; write podman login {registry}"
        return (
            f"{self._reference}: {registry} wants a login, or has no such image; write docker login {registry} "
            "(it fills ~/.docker/config.json), or let $REGISTRY_AUTH_FILE name the file that holds one"
        )


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
