"""The words of a message, and its shape for each kind of channel. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.policy import SMTP

from xgen.drawing.wording import one_line
from xgen.notify.facts import Fact

_MOST = 300  # characters of a reason


@dataclass(frozen=True)
class About:
    """The run that a message is about."""

    run: str
    user: str
    project: str
    cluster: str


def command(fact: Fact, run: str) -> str:
    """What to type next."""
    match fact.state:
        case "started":
            return f"xgen watch {run}"
        case "finished" | "test":
            return f"xgen show {run}"
        case "cancelled" | "lost":
            return f"xgen resume {run}"
        case _:
            return f"xgen why {run}"


def text(fact: Fact, about: About) -> str:
    """One line, and the command below it."""
    saved = f"step {fact.durable_step:,} is saved" if fact.durable_step else "nothing is saved"
    at = f" at step {fact.step:,}" if fact.step else ""
    why = f": {reason}" if (reason := _plain(fact.reason)) else ""
    steps = f"; {saved}" if fact.step else ""
    match fact.state:
        case "started":
            said = f"has started on {_plain(fact.nodes) or 'its nodes'}, job {fact.job_id}"
        case "preempted":
            said = f"was preempted{at}{steps}, and it waits to go on"
        case "crashed":
            said = f"crashed{at}{why}{steps}, and it is tried again"
        case "failed":
            said = f"has failed{at}{why}{steps}; nothing restarts it"
        case "lost":
            said = f"is lost{at}: no job, and nobody decided{steps}"
        case "test":
            said = "has somebody to tell: this is a test"
        case "settled":
            said = f"was found dead{at}{why}{steps}, and it is decided now"
        case "hung":
            said = f"makes no progress{at}{why}{steps}"
        case "finished":
            said = f"has finished{at}{f', after {fact.attempt} attempts' if fact.attempt > 1 else ''}"
        case _:
            said = f"was cancelled{at}{steps}"
    return f"{about.run} {said}\nnext: {command(fact, about.run)}"


def as_json(fact: Fact, about: About) -> bytes:
    """Generic: every key is always there."""
    facts = asdict(fact) | {"reason": _plain(fact.reason), "fact": fact.key}
    del facts["key"]
    said = {"text": text(fact, about), "command": command(fact, about.run)}
    return json.dumps(asdict(about) | facts | said).encode()


def as_slack(fact: Fact, about: About) -> bytes:
    """`text` alone, which Mattermost, Rocket.Chat and Zulip take too. Nothing in it is a mention or a link."""
    said = text(fact, about).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line, _, following = said.partition("\n")
    return json.dumps({"text": f"{line}\n`{following.removeprefix('next: ')}`"}).encode()


def as_mail(fact: Fact, about: About, sender: str, to: list[str]) -> EmailMessage:
    said = text(fact, about)
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Subject"] = f"[xgen] {said.splitlines()[0]}"[:150]
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{said}\n\ncluster {about.cluster}, user {about.user}, project {about.project or '-'}\n")
    return mail


def _plain(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _MOST else f"{line[: _MOST - 1]}…"
