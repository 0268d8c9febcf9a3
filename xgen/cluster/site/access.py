"""Where the jobs of this user may run, and as which QOS, of what SLURM says. Pure.

root may use any partition, whatever its groups and QOS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from xgen.cluster.site.facts import Association, Site, SitePartition

_FLAT = (22, 5)  # the last release of which we know that AllowAccounts names no subaccounts


def usable(site: Site) -> tuple[SitePartition, ...]:
    """Partitions in which this user may run jobs, as far as SLURM says."""
    return tuple(part for part in site.partitions if why_closed(site, part) is None)


def why_closed(site: Site, part: SitePartition) -> str | None:
    """What keeps this user's jobs out of it; None: nothing that we know of."""
    is_root = site.user == "root"
    if part.root_only and not is_root:
        return "RootOnly=YES"
    if not part.nodes:
        return "it has no nodes"
    if site.groups and part.allow_groups is not None and not is_root and not set(site.groups) & set(part.allow_groups):
        return f"AllowGroups={','.join(part.allow_groups)}, and yours are {', '.join(site.groups)}"
    if site.associations and not _allowed(site, part) and not _may_be_below(site, part):
        yours = f"and yours are {', '.join(accounts(site))}"
        if part.allow_accounts is not None:
            return f"AllowAccounts={','.join(part.allow_accounts)}, {yours}"
        return f"DenyAccounts={','.join(part.deny_accounts)}, {yours}"
    if job_qos(site, part) == ():
        said = f"AllowQos={','.join(part.allow_qos)}" if part.allow_qos else f"DenyQos={','.join(part.deny_qos)}"
        return f"{said}, and none of it is yours"
    return None


def accounts(site: Site) -> tuple[str, ...]:
    """Of this user."""
    return _names(site.associations)


def conditions(site: Site, part: SitePartition) -> list[str]:
    """What a job must have there, or what we do not know, of a partition that is not closed."""
    found = []
    if site.associations and not _allowed(site, part):
        allowed = ",".join(part.allow_accounts or ())
        found.append(f"closed, unless an account of yours lies below one of AllowAccounts={allowed}")
    elif needs_account(site, part):
        found.append(f"only with `project:` {' or '.join(_names(_allowed(site, part)))}")
    if (names := job_qos(site, part)) and default_qos(site, part) is None:
        found.append(f"only with a QOS that you name: SBATCH_QOS={' or '.join(names)}")
    return found


def needs_account(site: Site, part: SitePartition) -> bool:
    """Whether a job must name its account, or may not run there at all."""
    return bool(site.associations) and site.default_account not in (None, *_names(_allowed(site, part)))


def default_qos(site: Site, part: SitePartition) -> str | None:
    """Of a job that names none; None where it is refused, or where the accounting says nothing."""
    for one in own_associations(site, part):
        name = one.default_qos or (one.qos[0] if len(one.qos) == 1 else "normal")
        if _may(site, part, name):
            return name
    return None


def job_qos(site: Site, part: SitePartition) -> tuple[str, ...] | None:
    """QOS of this user's jobs there: of one that names none, else all that it may name. None: it is not known."""
    own = own_associations(site, part)
    if not own or not any(one.qos or one.default_qos for one in own):
        return None
    if default := default_qos(site, part):
        return (default,)
    return tuple(dict.fromkeys(name for one in own for name in one.qos if _may(site, part, name)))


def own_associations(site: Site, part: SitePartition) -> tuple[Association, ...]:
    """Those that count for a job there: of the default account, where it may run there."""
    there = [one for one in site.associations if one.partition in (None, part.name)]
    allowed = [one for one in there if _in(one.account, _names(_allowed(site, part)))] or there
    default = [one for one in allowed if one.account == site.default_account]
    return tuple(default or allowed)


def _may(site: Site, part: SitePartition, qos: str) -> bool:
    if site.user == "root":
        return True
    return _in(qos, part.allow_qos) if part.allow_qos is not None else not _in(qos, part.deny_qos)


def _allowed(site: Site, part: SitePartition) -> list[Association]:
    """DenyAccounts is heeded only without AllowAccounts."""
    if part.allow_accounts is not None:
        return [one for one in site.associations if _in(one.account, part.allow_accounts)]
    return [one for one in site.associations if not _in(one.account, part.deny_accounts)]


def _may_be_below(site: Site, part: SitePartition) -> bool:
    return part.allow_accounts is not None and (site.release is None or site.release > _FLAT)


def _in(name: str, names: Collection[str]) -> bool:
    """The accounting lowers names, and slurm.conf does not."""
    return name.casefold() in {one.casefold() for one in names}


def _names(associations: Iterable[Association]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.account for one in associations))
