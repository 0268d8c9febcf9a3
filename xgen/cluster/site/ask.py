"""Asks SLURM for the facts of its site: a handful of commands, each with its time-out."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import TypeVar

from xgen.cluster.site import parse
from xgen.cluster.site.facts import Association, Qos, Site, SiteNode, SitePartition
from xgen.cluster.slurm import SchedulerError, command
from xgen.runs.users import user_name

Answer = TypeVar("Answer")


def ask_site() -> Site:
    """Raises SchedulerError where there is no controller to ask; what else is not answered the site says."""
    unanswered: list[str] = []

    def ask(what: str, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return question()
        except (SchedulerError, ValueError) as error:  # or in a way that we cannot read
            unanswered.append(f"{what}: {error}")
            return otherwise

    settings = parse.config(command("scontrol", "show", "config"))
    parts = ask("partitions", lambda: parse.partitions(_records("partition"), settings), tuple[SitePartition, ...]())
    nodes = ask("nodes", lambda: parse.nodes(_records("node")), tuple[SiteNode, ...]())
    user, cluster = user_name(os.getuid()), settings.get("ClusterName", "")
    accounting: bool | None = False
    account, associations, qos = None, tuple[Association, ...](), tuple[Qos, ...]()
    if settings.get("AccountingStorageType", "").endswith("/slurmdbd"):
        before = len(unanswered)
        account = ask("default account", lambda: _default_account(user, cluster), None)
        associations = ask("associations", lambda: _associations(user, cluster), ())
        qos = ask("QOS", lambda: parse.qos(_sacctmgr("show", "qos", f"format={','.join(parse.QOS_COLUMNS)}")), ())
        accounting = len(unanswered) == before
    return Site(
        cluster=cluster,
        version=settings.get("SLURM_VERSION", ""),
        config=settings,
        partitions=parts,
        nodes=nodes,
        user=user,
        accounting=accounting,
        default_account=account,
        associations=associations,
        qos=qos,
        groups=_groups(),
        unanswered=tuple(unanswered),
    )


def _records(what: str) -> str:
    return command("scontrol", "--local", "--all", "--details", "--oneliner", "show", what)


def _groups() -> tuple[str, ...]:
    """Of this user; none for one whom this machine does not know."""
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return ()
    return tuple(_group_name(number) for number in os.getgrouplist(user.pw_name, user.pw_gid))


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _associations(user: str, cluster: str) -> tuple[Association, ...]:
    """A slurmdbd may serve several clusters."""
    return parse.associations(
        _sacctmgr(
            "show", "assoc", f"user={user}", f"cluster={cluster}", f"format={','.join(parse.ASSOCIATION_COLUMNS)}"
        )
    )


def _default_account(user: str, cluster: str) -> str | None:
    lines = _sacctmgr("show", "user", "withassoc", f"user={user}", f"cluster={cluster}", "format=DefaultAccount")
    return next(filter(None, map(str.strip, lines.splitlines())), None)


def _sacctmgr(*words: str) -> str:
    return command("sacctmgr", "--noheader", "--parsable2", "--readonly", *words)
