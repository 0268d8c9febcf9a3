"""What SLURM remembers and shows: the accounting, and what it hides from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.site import Site
from xgen.spec import Profile

# Of what PrivateData hides, what xgen would show.
_HIDDEN = {
    "jobs": "jobs of others in xgen top, and in the exporter unless its user is an operator",
    "nodes": "nodes, so that xgen top and xgen why cannot say what is free",
    "partitions": "partitions that one may not use",
    "usage": "what others used in xgen usage",
}


def find_accounting(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    del profile, needs
    kind = site.config.get("AccountingStorageType")
    if kind is None:
        return
    lacks = "xgen usage has no sacct beside it, and who cancelled a job is not known"
    if not kind.endswith("/slurmdbd"):
        yield Finding(
            "accounting",
            "warning",
            f"AccountingStorageType={kind or '(nothing)'}: {lacks}",
            "slurm.conf: AccountingStorageType=accounting_storage/slurmdbd, with a slurmdbd",
        )
    elif site.accounting is False:
        said = next(iter(site.unanswered), "sacctmgr does not answer")
        yield Finding("accounting", "warning", f"{said}: {lacks}", "start slurmdbd, or install sacct and sacctmgr here")
    elif site.accounting:
        yield Finding("accounting", "ok", kind)


def find_private_data(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    del profile, needs
    if "PrivateData" not in site.config:
        return
    hidden = [word for word in site.words("PrivateData") if word.lower() in _HIDDEN]
    if not hidden:
        yield Finding("private data", "ok", "nothing that xgen shows is hidden")
        return
    said = "; ".join(_HIDDEN[word.lower()] for word in hidden)
    left = [word for word in site.words("PrivateData") if word not in hidden]
    yield Finding(
        "private data",
        "warning",
        f"PrivateData={','.join(site.words('PrivateData'))} hides {said}",
        f"slurm.conf: PrivateData={','.join(left) or 'none'}; or sacctmgr modify user NAME set adminlevel=operator for "
        "whoever runs xgen exporter",
    )
