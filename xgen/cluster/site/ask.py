"""Asks SLURM for the facts of its site: a handful of commands, each with its time-out."""

from __future__ import annotations

import os
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
        except SchedulerError as error:
            unanswered.append(f"{what}: {error}")
            return otherwise

    settings = parse.config(command("scontrol", "show", "config"))
    parts = ask("partitions", lambda: parse.partitions(_records("partition"), settings), tuple[SitePartition, ...]())
    nodes = ask("nodes", lambda: parse.nodes(_records("node")), tuple[SiteNode, ...]())
    user = user_name(os.getuid())
    accounting: bool | None = False
    account, associations, qos = None, tuple[Association, ...](), tuple[Qos, ...]()
    if settings.get("AccountingStorageType", "").endswith("/slurmdbd"):
        before = len(unanswered)
        account = ask("default account", lambda: _table("user", user, "DefaultAccount").strip() or None, None)
        associations = ask("associations", lambda: _associations(user), ())
        qos = ask("QOS", lambda: parse.qos(_sacctmgr("show", "qos", f"format={','.join(parse.QOS_COLUMNS)}")), ())
        accounting = len(unanswered) == before
    return Site(
        cluster=settings.get("ClusterName", ""),
        version=settings.get("SLURM_VERSION", ""),
        config=settings,
        partitions=parts,
        nodes=nodes,
        user=user,
        accounting=accounting,
        default_account=account,
        associations=associations,
        qos=qos,
        unanswered=tuple(unanswered),
    )


def _records(what: str) -> str:
    return command("scontrol", "--all", "--details", "--oneliner", "show", what)


def _associations(user: str) -> tuple[Association, ...]:
    return parse.associations(_table("assoc", user, ",".join(parse.ASSOCIATION_COLUMNS)))


def _table(what: str, user: str, columns: str) -> str:
    return _sacctmgr("show", what, f"user={user}", f"format={columns}")


def _sacctmgr(*words: str) -> str:
    return command("sacctmgr", "--noheader", "--parsable2", "--readonly", *words)
