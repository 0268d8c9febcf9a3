"""The network interface that NCCL and gloo take by themselves, and whether the other nodes are behind it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xgen.cluster.doctor.facts import NodeFacts
from xgen.cluster.doctor.finding import Finding
from xgen.spec import Profile

_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def find_interface(nodes: Sequence[NodeFacts], profile: Profile) -> Iterator[Finding]:
    told = [one for one in nodes if "interfaces" in one.said]
    if not told:
        return
    wrong: dict[str, list[str]] = {}  # nodes by what is wrong with them
    lines: list[str] = []
    for one in told:
        for said, line in _of_node(one, profile):
            wrong.setdefault(said, []).append(one.node)
            lines.append(line)
    if wrong:
        said = "; ".join(f"{', '.join(names)}: {text}" for text, names in wrong.items())
        yield Finding("network interface", "failed", said, "\n".join(dict.fromkeys(lines)))
    elif routes := sorted({route for one in told for route in one.below("route").values() if route}):
        yield Finding("network interface", "ok", f"the nodes reach each other by {', '.join(routes)}")


def _of_node(one: NodeFacts, profile: Profile) -> Iterator[tuple[str, str]]:
    """What is wrong, and the line that mends it."""
    there = one.said["interfaces"].split()
    routes = sorted({route for route in one.below("route").values() if route})
    by = routes[0] if routes else ""
    gloo, nccl = profile.env.get(_GLOO), profile.env.get(_NCCL)
    for name, value in ((_GLOO, gloo), (_NCCL, nccl)):
        taken = [] if value is None else _taken(value, there)
        line = f"profile: env.{name}: {by or 'the interface of the network between the nodes'}"
        if value is not None and not taken:
            yield f"{name}={value}, and there are {', '.join(there)}", line
        elif value is not None and by and by != "lo" and taken == ["lo"]:
            yield f"{name}={value} stays on the node, and the others are reached by {by}", line
    if not by or by == "lo":  # nodes that are one machine, or one node alone
        return
    address = one.said.get("own_address")
    if gloo is None and address is not None and (not address or address.startswith("127.")):
        means = f"means {address}" if address else "means nothing"
        yield f"its own name {means} there, and gloo listens at it", f"profile: env.{_GLOO}: {by}"
    picked = nccls_choice(there) if nccl is None and "nvidia" in one.said else None
    if picked not in (None, by) and not str(picked).startswith("ib"):  # which is a network of its own
        yield f"NCCL takes {picked}, and the other nodes are reached by {by}", f"profile: env.{_NCCL}: {by}"


def _taken(value: str, there: Sequence[str]) -> list[str]:
    """As NCCL reads it: prefixes, `=` before whole names, `^` before what is not to be taken (gloo: whole names)."""
    names = value.lstrip("^").removeprefix("=").split(",")
    exact = value.lstrip("^").startswith("=")
    matching = [one for one in there if any(one == name or (not exact and one.startswith(name)) for name in names)]
    return [one for one in there if one not in matching] if value.startswith("^") else matching


def nccls_choice(there: Sequence[str]) -> str | None:
    """The first InfiniBand interface, else the first that is neither docker's nor the loopback, else those (NCCL,
    src/misc/socket.cc, ncclFindInterfaces)."""
    others = [one for one in there if not one.startswith(("docker", "lo", "virbr"))]
    ordered = [*(one for one in there if one.startswith("ib")), *others, *there]
    return ordered[0] if ordered else None
