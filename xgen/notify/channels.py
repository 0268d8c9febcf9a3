"""Where messages about a run go: what its spec names, and what the cluster's profile names for all runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from xgen.notify import message, send
from xgen.notify.facts import Fact
from xgen.notify.message import About
from xgen.runs.users import user_name
from xgen.spec import Job, LoadedJob, Profile, SpecError
from xgen.spec.notify import Hook, Notify, Occasion, Smtp


@dataclass(frozen=True)
class Channel:
    """`name` is its name in the run directory: no two of a run have the same."""

    name: str
    on: frozenset[Occasion]
    file: str = ""  # with the URL; '' for mail
    to: tuple[str, ...] = ()
    sender: str = ""
    smtp: Smtp | None = None

    @property
    def place(self) -> str:
        """What fails together, in the eyes of whoever sends."""
        return self.file or (self.smtp.host if self.smtp else "sendmail")

    def url(self) -> str:
        """Of a hook; '' for mail. Raises SendError where this sender cannot read it: then it is not the one to send."""
        return send.read_url(self.file) if self.file else ""

    def send(self, url: str, fact: Fact, about: About) -> None:
        """Raises SendError."""
        if not url:
            send.mail(message.as_mail(fact, about, self.sender, list(self.to)), self.smtp)
        elif self.name.endswith("slack"):
            send.post(url, message.as_slack(fact, about))
        else:
            send.post(url, message.as_json(fact, about))


def channels_of(notify: Notify | None, profile: Profile, *, site: bool) -> tuple[Channel, ...]:
    """`site`: of the profile's own, which are named apart from those of a spec."""
    if notify is None:
        return ()
    prefix, on, mail = "site-" if site else "", frozenset(notify.on), profile.notify
    found = [Channel(prefix + name, on, file=hook.file) for name, hook in _hooks(notify)]
    if notify.email:
        sender = (mail and mail.sender) or f"{user_name(os.geteuid())}@{socket.getfqdn()}"
        smtp = mail.smtp if mail else None
        found.append(Channel(f"{prefix}email", on, to=tuple(notify.email), sender=sender, smtp=smtp))
    return tuple(found)


def check_hooks(loaded: LoadedJob) -> None:
    """Raises SpecError where a hook of the spec cannot be used by whoever submits it."""
    job: Job = loaded.job
    if job.notify is None:
        return
    problems = []
    for name, hook in _hooks(job.notify):
        try:
            send.read_url(hook.file)
        except send.SendError as error:
            problems.append(loaded.problem(f"notify.{name}.file", str(error)))
    if problems:
        raise SpecError(*problems)


def _hooks(notify: Notify) -> list[tuple[str, Hook]]:
    """Those that are named, each by its key."""
    return [(name, hook) for name, hook in (("webhook", notify.webhook), ("slack", notify.slack)) if hook]


def is_ours(run_path: Path) -> bool:
    """A spec's hooks are used for its owner's own runs only: whoever else sends would read files and open connections
    at a stranger's word."""
    return run_path.stat().st_uid == os.geteuid()
