"""What the nodes said, against what a job needs of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from xgen.cluster.doctor.facts import Answer, NodeFacts
from xgen.cluster.doctor.finding import Finding, Severity, What
from xgen.cluster.doctor.interfaces import find_interface
from xgen.cluster.doctor.need import Need
from xgen.cluster.doctor.programs import PROGRAMS, version_of, wrong_version
from xgen.spec import Profile
from xgen.spec.units import format_bytes

SMALL_SHM = 2**30  # bytes
_CLOCK = 2  # seconds that a node's clock may be apart
_OWN_SHM = ("docker", "podman")  # their containers do not see the node's
_USER_NAMESPACES = ("charliecloud", "podman", "enroot", "pyxis")  # whose ordinary users need them


def judge_nodes(
    answer: Answer,
    wanted: int,
    profile: Profile,
    needs: Sequence[Need],
    images: Sequence[str] = (),
    inputs: Sequence[str] = (),
) -> Iterator[Finding]:
    """`wanted`: nodes that were asked; `images`, `inputs`: paths that they must be able to read."""
    nodes = answer.nodes
    names = ", ".join(one.node for one in nodes)
    if len(nodes) < wanted:
        by = f" ({names})" if names else ""
        said = f"{len(nodes)} of {wanted} answered{by}: {answer.error or 'nothing is said of why'}"
        yield Finding("nodes", "failed", said, "the same by hand says more: srun --nodes=2 --partition=NAME uname -n")
    else:
        yield from _each("nodes", nodes, _silent, names, "look at the node: a dead mount or a full one hangs like this")
    yield from _run_root(answer, profile)
    yield from _locks(answer, profile)
    yield from _runtime(nodes, profile)
    if images:
        fix = "profile: container.image_dir: a folder of the file system that all nodes mount, for all to read"
        yield from _each("image", nodes, _wrong_files("image"), ", ".join(images), fix)
    if profile.container.runtime != "none":
        fix = "profile: container.mounts, or the spec's: paths that all nodes have"
        yield from _each("mounts", nodes, _wrong_files("mount"), "all that is mounted is there", fix)
    if inputs:
        fix = "spec: a folder of the file system that all nodes mount, for the job to read"
        yield from _each("inputs", nodes, _wrong_files("input"), ", ".join(inputs), fix)
    yield from _shm(nodes, profile, needs)
    yield from _clock(answer)
    yield from find_interface(nodes, profile)
    yield from _checked(nodes, profile)


def _wrong_files(kind: str) -> Callable[[NodeFacts], str]:
    """Of images, mounts or inputs, of which a node names those that are missing or unreadable."""

    def wrong(one: NodeFacts) -> str:
        said = (text.partition(" ") for text in one.below(kind).values())
        return ", ".join(f"{place} is {state}" for state, _, place in said)

    return wrong


def _silent(one: NodeFacts) -> str:
    return "" if one.finished else f"stopped after {list(one.said)[-1]}" if one.said else "said nothing"


def _run_root(answer: Answer, profile: Profile) -> Iterator[Finding]:
    root = profile.run_root

    def wrong(one: NodeFacts) -> str:
        match one.said.get("run_root", "").split(" ", 1):
            case ["missing"]:
                return f"{root} is not there"
            case ["other"]:
                return f"{root} is another folder: what this machine wrote is not in it"
            case ["unwritable", *why]:
                return f"{root} cannot be written: {' '.join(why)}"
            case ["same"] if one.node not in answer.seen_here:
                return f"what it wrote in {root} is not seen here"
            case _:
                return ""

    told = [one for one in answer.nodes if "run_root" in one.said]
    fix = "profile: run_root: a folder of the file system that all nodes and this machine mount; or mount it there"
    yield from _each("shared run root", told, wrong, f"{root} is one folder everywhere", fix)


def _locks(answer: Answer, profile: Profile) -> Iterator[Finding]:
    def wrong(one: NodeFacts) -> str:
        match one.said["lock"].split(" ", 1):
            case ["free"]:
                return "takes a lock that this machine holds: two jobs of a run would not notice each other"
            case ["broken", *why]:
                return f"cannot lock: {' '.join(why) or 'flock fails'}"
            case _:
                return ""

    told = [one for one in answer.nodes if "lock" in one.said and answer.locked]  # else it is found already
    fix = f"mount {profile.run_root} with locks across nodes: Lustre: -o flock; NFS: without nolock, local_lock"
    yield from _each("shared locks", told, wrong, "a lock of this machine holds on the nodes", fix)


def _runtime(nodes: Sequence[NodeFacts], profile: Profile) -> Iterator[Finding]:
    kind = profile.container.runtime
    if kind == "none":
        told = [one for one in nodes if "python" in one.said]
        fix = "profile: container.python: an interpreter on a file system that all nodes mount, with xgen installed"
        good = ", ".join(sorted({one.said["python"].removeprefix("ok ").replace(" ", ".") for one in told}))
        yield from _each("interpreter", told, _wrong_python, f"Python {good}, with xgen's packages", fix)
        return
    wanted = PROGRAMS[kind]
    least = ", ".join(f"{name} {'.'.join(map(str, version))}".rstrip() for name, version in wanted.items())

    def wrong(one: NodeFacts) -> str:
        there = one.below("program")
        faults = [fault for name, least in wanted.items() if (fault := wrong_version(name, there.get(name), least))]
        faults += ["srun knows no --container-image: pyxis is not loaded"] if one.said.get("pyxis") == "no" else []
        return "; ".join(faults)

    told = [one for one in nodes if one.below("program")]
    good = "; ".join(
        sorted({", ".join(f"{name} {version_of(text)}" for name, text in one.below("program").items()) for one in told})
    )
    plugin = " and pyxis in plugstack.conf" if kind == "pyxis" else ""
    fix = f"install {least}{plugin} on the nodes, on the PATH of jobs; or profile: container.runtime: another"
    yield from _each("runtime", told, wrong, good, fix)
    if kind in _USER_NAMESPACES:
        yield from _each(
            "user namespaces",
            [one for one in nodes if "userns" in one.said],
            lambda one: "unshare --user is refused" if one.said["userns"] == "no" else "",
            "they can be made",
            "sysctl user.max_user_namespaces=15000 (Debian, Ubuntu: kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0) on the nodes",
        )


def _wrong_python(one: NodeFacts) -> str:
    word, *version = one.said["python"].split()
    if word != "ok":
        return one.said["python"] or "no answer"
    return "" if tuple(map(int, version)) >= (3, 11) else f"Python {'.'.join(version)}, and 3.11 is needed"


def _shm(nodes: Sequence[NodeFacts], profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    wanted = max((need.shm for need in needs), default=0)
    if profile.container.runtime in _OWN_SHM:
        wanted = 0
    sizes = {one.node: tuple(map(int, one.said["shm"].split())) for one in nodes if one.said.get("shm")}
    lacking = {node: size for node, size in sizes.items() if size[1] < wanted}
    small = {node: size for node, size in sizes.items() if size[0] < SMALL_SHM}
    line = "mount -o remount,size=50% /dev/shm on the nodes, and in their /etc/fstab"
    if lacking:
        said = {
            node: f"{format_bytes(free)} free, and the spec wants {format_bytes(wanted)}"
            for node, (_, free) in lacking.items()
        }
        yield Finding("/dev/shm", "failed", _by_text(said), f"{line}; or less in spec: container.shm")
    elif small:
        said = {node: f"{format_bytes(size)}: NCCL and data loaders need some GB" for node, (size, _) in small.items()}
        yield Finding("/dev/shm", "warning", _by_text(said), line)
    elif sizes:
        yield Finding("/dev/shm", "ok", format_bytes(min(size for size, _ in sizes.values())))


def _clock(answer: Answer) -> Iterator[Finding]:
    when = answer.when

    def wrong(one: NodeFacts) -> str:
        assert one.time is not None
        apart = one.time - (when[0] if one.time < when[0] else when[1])
        return f"{apart:+.0f} s from this machine's" if not when[0] - _CLOCK <= one.time <= when[1] + _CLOCK else ""

    told = [one for one in answer.nodes if one.time is not None]
    fix = (
        "start chrony or systemd-timesyncd on the node: munge refuses what is 5 minutes apart, events are out of order"
    )
    yield from _each("clock", told, wrong, "the nodes and this machine agree", fix)


def _checked(nodes: Sequence[NodeFacts], profile: Profile) -> Iterator[Finding]:
    """Of the checks that every job makes before its first step (docs/nodes.md)."""
    subjects: list[tuple[What, tuple[str, ...]]] = [
        ("node health", ("memory", "disk", "filesystem", "clock", "answer"))
    ]
    subjects += [("GPUs", ("gpus",))] if profile.gpus.request != "none" else []
    for what, checks in subjects:
        faults: dict[Severity, dict[str, str]] = {"failed": {}, "warning": {}}
        for one in nodes:
            for found in one.checked:
                if found.check in checks:
                    faults["failed" if found.level == "bad" else "warning"][one.node] = f"{found.check}: {found.text}"
        for severity, said in faults.items():
            if said:
                yield Finding(
                    what, severity, _by_text(said), "have the node mended; docs/nodes.md says what each means"
                )
        if not any(faults.values()) and any(one.finished for one in nodes):
            yield Finding(what, "ok", "what every job checks is sound")


def _each(
    what: What, nodes: Sequence[NodeFacts], wrong: Callable[[NodeFacts], str], good: str, fix: str
) -> Iterator[Finding]:
    """One finding for all nodes that said something of it, which names those that are wrong."""
    faults = {one.node: text for one in nodes if (text := wrong(one))}
    if faults:
        yield Finding(what, "failed", _by_text(faults), fix)
    elif nodes:
        yield Finding(what, "ok", good)


def _by_text(said: Mapping[str, str]) -> str:
    """`n1, n2: what both say`."""
    nodes = defaultdict(list)
    for node, text in said.items():
        nodes[text].append(node)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in nodes.items())
