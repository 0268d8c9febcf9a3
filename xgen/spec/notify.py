"""Who is told of what happens to a run: a webhook, a chat, e-mail. URLs with tokens lie in files, never in a spec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator

from xgen.spec.base import Strict

Occasion = Literal["start", "preemption", "failure", "hang", "finish"]
OCCASIONS: tuple[Occasion, ...] = get_args(Occasion)
_ADDRESS = re.compile(r"[^\s@<>,;:\"]+@[A-Za-z0-9.-]+")


class Hook(Strict):
    """A URL that is told."""

    file: str = Field(description="a file that others cannot read; its first line is the URL")

    @field_validator("file")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if "://" in value:  # not to be repeated: it may be the secret itself
            raise ValueError("that is a URL, and a spec is printed and stored; write it into a file, and the file here")
        if not Path(value).expanduser().is_absolute():
            raise ValueError(f"{value!r} is no absolute path; write e.g. ~/.config/xgen/slack.url")
        return value


def _hook(value: object) -> object:
    if isinstance(value, str):
        said = "a URL is a secret, and a spec is printed and stored" if "://" in value else f"{value!r} is text"
        raise ValueError(f"{said}; write {{file: ~/.config/xgen/hook.url}}, a file with the URL")
    return value


class Notify(Strict):
    """Who is told, and of what."""

    on: list[Occasion] = Field(
        default_factory=lambda: list(OCCASIONS),
        min_length=1,
        description="start: of the first attempt; failure: each crash, and the end; finish: a cancel too",
    )
    webhook: Hook | None = Field(default=None, description="gets JSON: run, state, reason, step, text, command, …")
    slack: Hook | None = Field(default=None, description="an incoming webhook of Slack, Mattermost, Rocket.Chat, …")
    email: list[str] = Field(default_factory=list, description="addresses; how mail is sent the profile says")

    _hooks = field_validator("webhook", "slack", mode="before")(_hook)

    @field_validator("email")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for address in value:
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is no address; write e.g. ann@example.org")
        return value


class Smtp(Strict):
    """A mail server."""

    host: str
    port: int = Field(default=25, ge=1, le=65535)
    tls: Literal["none", "starttls", "tls"] = "none"
    login: Hook | None = Field(default=None, description="its first line: user:password")


class SiteNotify(Notify):
    """The same for all runs of a cluster, and how mail is sent there."""

    smtp: Smtp | None = Field(default=None, description="default: /usr/sbin/sendmail")
    sender: str | None = Field(default=None, description="address that mail comes from; default: user@host")

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError(f"{value!r} is no address; write e.g. xgen@example.org")
        return value
