"""A cluster that is reached over ssh: a profile on a laptop says where, and nothing else."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, ValidationError, field_validator

from xgen.spec.base import Count, Strict
from xgen.spec.errors import Problem, SpecError

_LOGIN = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^@:\s]+))(?::(?P<port>\d+))?")


class Ssh(Strict):
    """Where the login node is, and where xgen is on it. What ~/.ssh/config says of the host counts too."""

    host: str = Field(description="the login node: a name, an address, or a Host of ~/.ssh/config")
    user: str | None = Field(default=None, description="default: ssh's own")
    port: Count | None = Field(default=None, ge=1, le=65535, description="default: ssh's own")
    identity: str | None = Field(default=None, description="file of the private key; default: ssh's own")
    xgen: str = Field(default="xgen", description="of the cluster; default: the one on PATH there")
    folder: str = Field(
        default="~/.cache/xgen/remote", description="on the cluster, for copies of checkouts; all nodes should see it"
    )

    @field_validator("host", "user")
    @classmethod
    def _is_a_word(cls, value: str | None) -> str | None:
        if value is not None and (not value or value.startswith("-") or re.search(r"\s", value)):
            raise ValueError(f"{value!r} is no name; write e.g. login.example.org")
        return value

    @field_validator("folder")
    @classmethod
    def _is_whole(cls, value: str) -> str:
        if not re.fullmatch(r"~|(~?/)[\w./+@%=-]*", value):
            raise ValueError(f"{value!r}: write the whole path, or one that begins with ~/, without blanks")
        return value

    @property
    def said(self) -> str:
        """As people write it."""
        return f"{self.user}@{self.host}" if self.user else self.host


class Pointer(Strict):
    """A profile that says only where the cluster is."""

    ssh: Ssh


class ElsewhereError(Exception):
    """A profile was asked for whose cluster is reached over ssh: the command is the cluster's to run."""

    def __init__(self, cluster: str, ssh: Ssh) -> None:
        super().__init__(f"{cluster} is reached over ssh, at {ssh.said}")
        self.cluster, self.ssh = cluster, ssh


def parse_login(text: str, **more: Any) -> Ssh:
    """`[user@]host[:port]`, an IPv6 address in brackets. Raises SpecError."""
    found = _LOGIN.fullmatch(text)
    host = found and (found["host"] or found["six"])
    if not found or not host or text.startswith("-") or not 0 < int(found["port"] or 22) < 65536:
        raise SpecError(Problem("", "--host", f"{text!r} is no login; write [user@]host[:port]"))
    given = {"user": found["user"], "port": int(found["port"]) if found["port"] else None} | more
    try:
        return Ssh(host=host, **given)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(Problem("", "--host", f"{text!r}: {said}")) from None
