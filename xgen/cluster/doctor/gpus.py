"""GPUs: whether what the profile asks for is what this cluster understands, and has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.site import Site
from xgen.spec import Profile
from xgen.spec.base import nearest

_WITHOUT = ("linear", "cons_res")  # plugins that know no --gpus-per-node


def find_request(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    request, wanted = profile.gpus.request, profile.gpus.type
    names = [name for name in profile.partitions if site.nodes_of(name)]
    if request == "none":
        if asking := next(
            (n for n in needs if n.gpus_per_node and any(x.gpus for x in site.nodes_of(n.partition))), None
        ):
            said = (
                f"{asking.name} wants GPUs, {asking.partition} has some, and gpus.request: none asks SLURM for no GPU"
            )
            yield Finding("GPU request", "failed", said, "profile: gpus.request: gpus-per-node")
        return
    select = site.config.get("SelectType", "")
    if request == "gpus-per-node" and select.endswith(_WITHOUT):
        yield Finding(
            "GPU request",
            "failed",
            f"SelectType={select}, which knows no --gpus-per-node",
            "profile: gpus.request: gres; or slurm.conf: SelectType=select/cons_tres, and slurmctld started again",
        )
        return
    if "GresTypes" in site.config and "gpu" not in site.words("GresTypes"):
        yield Finding(
            "GPU request",
            "failed",
            f"GresTypes={site.config['GresTypes'] or '(nothing)'}: SLURM knows no GPUs, and {request} asks for some",
            "slurm.conf: GresTypes=gpu, Gres=gpu:N of each node, gres.conf: files; or profile: gpus.request: none",
        )
        return
    found: dict[Finding, list[str]] = {}  # partitions by what is wrong with them
    for name in names:
        if wrong := _of_partition(name, site, profile, needs):
            found.setdefault(wrong, []).append(name)
    for wrong, where in found.items():
        yield replace(wrong, evidence=f"{wrong.evidence} in {', '.join(where)}")
    if names and not found:
        kinds = sorted({gpus.type or "gpu" for name in names for node in site.nodes_of(name) for gpus in node.gpus})
        yield Finding("GPU request", "ok", f"{request}{f', type {wanted}' if wanted else ''} of {', '.join(kinds)}")


def _of_partition(name: str, site: Site, profile: Profile, needs: Sequence[Need]) -> Finding | None:
    """What the partition does not have. One without GPUs is wrong only for a job that wants some."""
    nodes, wanted = site.nodes_of(name), profile.gpus.type
    asked = max((need for need in needs if need.partition == name), key=lambda n: n.gpus_per_node, default=None)
    asks = f"{asked.name} asks for {asked.gpus_per_node} GPUs a node, and no node" if asked else ""
    with_gpus = [node for node in nodes if node.num_gpus]
    if not with_gpus:
        if asked is None or not asked.gpus_per_node:
            return None
        fix = "spec: resources.partition: another, or resources.gpus_per_node: 0"
        return Finding("GPU request", "failed", f"{asks} has any (Gres)", fix)
    types = sorted({gpus.type for node in with_gpus for gpus in node.gpus if gpus.type})
    if wanted and wanted not in types:
        said = f"gpus.type: {wanted}, and SLURM {'has ' + ', '.join(types) if types else 'names no type'}"
        fix = f"profile: gpus.type: {nearest(wanted, types)}" if types else "profile: remove gpus.type"
        return Finding("GPU request", "failed", said, fix)
    if not wanted and len(types) > 1:
        said = f"the profile asks for any type, and jobs get {' or '.join(types)}"
        return Finding("GPU request", "warning", said, f"profile: gpus.type: {types[0]}, or another of them")
    most = max(sum(g.count for g in node.gpus if wanted in (None, g.type)) for node in with_gpus)
    if asked and asked.gpus_per_node > most:
        fix = f"spec: resources.gpus_per_node: {most} or less, on more nodes"
        return Finding("GPU request", "failed", f"{asks} has over {most}", fix)
    return None


def find_isolation(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """Whether a job can open GPUs that it was not granted."""
    del needs
    if profile.gpus.request == "none" or "TaskPlugin" not in site.config:
        return
    if "task/cgroup" not in site.words("TaskPlugin"):
        yield Finding(
            "GPU isolation",
            "warning",
            f"TaskPlugin={site.config['TaskPlugin'] or '(nothing)'}: a job can open the GPUs of others on its node",
            "slurm.conf: TaskPlugin=task/cgroup,task/affinity, and cgroup.conf: ConstrainDevices=yes",
        )
    elif (constrained := site.config.get("ConstrainDevices")) is not None:
        good = constrained.lower() == "yes"
        said = "ConstrainDevices=yes" if good else f"ConstrainDevices={constrained}: a job can open the GPUs of others"
        yield Finding(
            "GPU isolation", "ok" if good else "warning", said, "" if good else "cgroup.conf: ConstrainDevices=yes"
        )
