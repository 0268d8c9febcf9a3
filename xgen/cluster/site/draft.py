"""From what is known of a site and of this machine to a profile whose every value says where it is from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from xgen.cluster.site.access import accounts, conditions, job_qos, own_associations, usable, why_closed
from xgen.cluster.site.facts import Site, SitePartition
from xgen.cluster.site.known import known_gpu
from xgen.cluster.site.machine import Asked, Folder, Machine, environment_of
from xgen.cluster.site.preemption import Preemption, hears_of_it, preemption
from xgen.spec.units import format_duration

Key = tuple[str, ...]
_NO_LIMIT = "365d"  # a profile has no word for it
_KILLS = ("CANCEL", "REQUEUE")  # modes of preemption that end a job


@dataclass(frozen=True)
class Setting:
    """`value` as YAML has it. `check`: of a guess, how to find out whether it is right."""

    key: Key
    value: object
    why: str
    check: str = ""


@dataclass(frozen=True)
class Draft:
    """`left_out`: keys that nothing is known for, with what holds then."""

    head: tuple[str, ...]
    settings: tuple[Setting, ...]
    left_out: tuple[str, ...] = field(default=())


def draft(site: Site, machine: Machine, asked: Asked) -> Draft:
    """Of a SLURM. Without a `run_root` where nobody said one and no folder can be it."""
    runs = _runs(machine, asked, _is_here(site))
    settings = [
        Setting(("scheduler",), "slurm", f"SLURM {site.version} answers here"),
        *runs,
        *(
            Setting(
                ("partitions", part.name),
                partition_values(site, part),
                partition_why(site, part),
                partition_check(site, part),
            )
            for part in usable(site)
        ),
        *_gpus(site, machine),
        *_container(machine, asked, runs, _is_here(site)),
        *_network(site),
        *_times(site),
        *_restart(site),
        *_mpi(site),
    ]
    return Draft(tuple(_head(site)), tuple(settings), tuple(_left_out(site)))


def local_draft(machine: Machine, asked: Asked, said: str) -> Draft:
    """Of a machine without SLURM; `said`: why we believe so."""
    settings = [
        Setting(("scheduler",), "local", f"{said}: the embedded executor runs the same script here, without a queue"),
        *(_runs(machine, asked, here=True)),
        Setting(("partitions", "gpu"), {"max_time": _NO_LIMIT, "default": True}, "a name for specs: there is no queue"),
        *_local_gpus(machine),
        Setting(("container", "runtime"), "none", "programs run as they are; --runtime NAME: docs/containers.md"),
        *([Setting(("container", "image_dir"), str(asked.image_dir), _SAID)] if asked.image_dir else []),
        *_interpreter(asked.python, mounted=False),
        Setting(("env", "GLOO_SOCKET_IFNAME"), "lo", _HERE),
        Setting(("env", "NCCL_SOCKET_IFNAME"), "lo", _HERE),
    ]
    return Draft((f"{machine.host}, a machine without SLURM",), tuple(settings))


def _local_gpus(machine: Machine) -> Iterator[Setting]:
    gpus = machine.gpus
    if gpus is None:
        yield Setting(("gpus", "request"), "none", "nvidia-smi shows none on this machine")
        yield Setting(("gpus", "flops"), "12G", "a core of a laptop, with which a plan counts")
        return
    yield Setting(("gpus", "request"), "gpus-per-node", f"{gpus.count} of {gpus.name}; every run sees all of them")
    yield _peak(gpus.name)
    yield Setting(("gpus", "memory"), f"{gpus.memory}MB", "memory.total of nvidia-smi")


def partition_values(site: Site, part: SitePartition) -> dict[str, object]:
    """What a profile says of it."""
    seconds, _ = max_time(site, part)
    values: dict[str, object] = {"max_time": _NO_LIMIT if seconds is None else format_duration(seconds)}
    if ends := _ended_by(site, part):
        values |= {"preemptible": True, "grace": format_duration(ends.grace)}
    if part.name == default_partition(site):
        values["default"] = True
    return values


def partition_why(site: Site, part: SitePartition) -> str:
    _, limit = max_time(site, part)
    parts = [_nodes_of(site, part), limit]
    found = preemption(site, part)
    if found and found.mode in _KILLS:
        parts.append(_ends(site, found))
    elif found:
        parts.append(f"PreemptMode={found.mode}: {', '.join(found.by)} suspend its jobs and let them go on later")
    else:
        parts.append("nothing preempts its jobs")
    if part.state != "UP":
        parts.append(f"State={part.state} now")
    if part.default and part.name != default_partition(site):
        parts.append(f"SLURM's own default{', without GPUs' * (_num_gpus(site, part) == 0)}")
    return "; ".join([*parts, *conditions(site, part)])


def partition_check(site: Site, part: SitePartition) -> str:
    """Of what is a guess about it; '' where nothing is."""
    if conditions(site, part):
        return f"srun --test-only -p {part.name} true"
    if part.name == default_partition(site) and not part.default:
        return "whether trainings belong there: SLURM's own default is another"
    return ""


def _nodes_of(site: Site, part: SitePartition) -> str:
    total = f"{len(part.nodes)} node{'s' * (len(part.nodes) != 1)}"
    if not site.nodes:
        return total
    counts = [node.num_gpus for node in site.nodes_of(part.name) if node.num_gpus]
    if not counts:
        return f"{total} with no GPUs"
    some = "" if len(counts) == len(part.nodes) else f"{len(counts)} of "
    return f"{some}{total} with {'/'.join(map(str, sorted(set(counts))))} GPUs each"


def _num_gpus(site: Site, part: SitePartition) -> int:
    return sum(node.num_gpus for node in site.nodes_of(part.name))


def _ends(site: Site, found: Preemption) -> str:
    others = "QOS" if found.by_qos else "partition"
    said = f"jobs of {others} {', '.join(found.by)} preempt its jobs (PreemptMode={found.mode}"
    if found.grace == 0:
        return f"{said}, GraceTime=0: only periodic checkpoints protect a run)"
    deaf = not hears_of_it(site)
    return f"{said}, GraceTime={found.grace:.0f}{', without preempt_send_user_signal: no --signal comes' * deaf})"


def max_time(site: Site, part: SitePartition) -> tuple[float | None, str]:
    """Seconds that a job there may ask for, and what says so: the partition, or a QOS or association with less."""
    names = job_qos(site, part) or ()
    qos = [one for one in site.qos if one.name in (part.qos, *names)]
    free = any("PartitionTimeLimit" in one.flags for one in qos)  # of the partition's limit
    said = [] if free else [(part.max_time, "MaxTime")]
    said += [(one.max_wall, f"MaxWall of the partition's QOS {one.name}") for one in qos if one.name == part.qos]
    said += [(one.max_wall, f"MaxWall of your account {one.account}") for one in own_associations(site, part)]
    if len(names) == 1:
        said += [(one.max_wall, f"MaxWall of your QOS {one.name}") for one in qos if one.name in names]
    limits = [(seconds, why) for seconds, why in said if seconds is not None]
    if not limits:
        return None, "a QOS with PartitionTimeLimit and no MaxWall" if free else "MaxTime=UNLIMITED"
    seconds, why = min(limits, key=lambda limit: limit[0])
    return seconds, f"{why}={format_duration(seconds)}"


def default_partition(site: Site) -> str | None:
    """SLURM's own, but where that is down, or has no GPUs and others have: then the one with GPUs in which a job may
    run longest that nobody preempts. A hidden one only where there is no other."""
    parts = usable(site)
    up = [part for part in parts if part.state == "UP" and not part.hidden] or parts
    some = any(_num_gpus(site, part) for part in up)
    own = next((part.name for part in up if part.default and (_num_gpus(site, part) or not some)), None)
    best = sorted(up, key=lambda part: _behind(site, part))
    return own or (best[0].name if best else None)


def _behind(site: Site, part: SitePartition) -> tuple[bool, bool, bool, bool, float, int]:
    """What puts a partition behind others, the weightiest first."""
    seconds, _ = max_time(site, part)
    gpus = _num_gpus(site, part)
    preempted = preemption(site, part) is not None
    return part.hidden, gpus == 0, bool(conditions(site, part)), preempted, -inf if seconds is None else -seconds, -gpus


def gpu_types(site: Site) -> dict[str | None, int]:
    """Nodes by the type of their GPUs, as gres.conf names it; of partitions that are open, where any is known."""
    names = {part.name for part in usable(site)}
    nodes = [node for node in site.nodes if names & set(node.partitions)] if names else site.nodes
    return Counter(gpus.type for node in nodes for gpus in node.gpus)


def gpu_request(site: Site) -> tuple[str, str]:
    """How GPUs are asked for, and what says so."""
    if site.nodes and not any(node.gpus for node in site.nodes):
        return "none", "no node has Gres=gpu"
    select = site.config.get("SelectType", "")
    if select.endswith("cons_tres"):
        return "gpus-per-node", f"SelectType={select}"
    return "gres", f"SelectType={select or 'is not said'}: only select/cons_tres knows --gpus-per-node"


def restart_by(site: Site) -> tuple[str, str]:
    """How a job goes on after preemption, and what says so."""
    if site.config.get("JobRequeue") == "0":
        return "successor", "JobRequeue=0: the site may take --requeue away from a job"
    if cancelled := [part.name for part in usable(site) if (_ended_by(site, part) or _NOBODY).mode == "CANCEL"]:
        return "successor", f"PreemptMode=CANCEL in {', '.join(cancelled)}: SLURM requeues nothing that it preempts"
    said = "JobRequeue=1" if site.config.get("JobRequeue") else "JobRequeue is not said, and SLURM's default is 1"
    return "requeue", f"{said}, no PreemptMode=CANCEL"


_NOBODY = Preemption("OFF", 0, (), by_qos=False)


def _ended_by(site: Site, part: SitePartition) -> Preemption | None:
    found = preemption(site, part)
    return found if found and found.mode in _KILLS else None


def _head(site: Site) -> Iterator[str]:
    yield f"{site.cluster}, as SLURM {site.version} describes it"
    yield from (f"Not known: {said}" for said in site.unanswered)
    closed = [(part.name, why_closed(site, part)) for part in site.partitions]
    yield from (f"Left out: partition {name}: {why}" for name, why in closed if why)
    if site.associations:
        without = site.default_account or "SLURM's default, which it did not say"
        yield f"Your accounts, for `project:` of a spec: {', '.join(accounts(site))}; without one: {without}"


def _is_here(site: Site) -> bool:
    """Whether all nodes are the machine that the controller is on."""
    return bool(site.nodes) and all(node.address.startswith("127.") for node in site.nodes)


def _runs(machine: Machine, asked: Asked, here: bool) -> list[Setting]:
    key = ("run_root",)
    if asked.run_root is not None:
        return [Setting(key, str(asked.run_root), _SAID)]
    if here:
        return [Setting(key, str(machine.root / "runs"), f"of this project; {_HERE}")]
    return [Setting(key, str(one.path / "xgen/runs"), _about(one), _LOOK) for one in machine.folders[:1]]


def _about(folder: Folder) -> str:
    said = f"{folder.said_by}, on {folder.file_system or 'a file system that the mount table does not name'}"
    return f"{said}, which nodes share as a rule" if folder.is_shared else f"{said}, which may be this machine's own"


_SAID = "as you said"
_HERE = "all nodes are this machine"
_LOOK = "touch a file there, and: srun -N2 ls FILE"


def _gpus(site: Site, machine: Machine) -> Iterator[Setting]:
    request, why = gpu_request(site)
    yield Setting(("gpus", "request"), request, why)
    if request == "none":
        return
    if machine.gpu_devices:
        yield Setting(("gpus", "devices"), machine.gpu_devices, "File= of gres.conf: no GPUs of NVIDIA")
    types = gpu_types(site)
    named = {name: count for name, count in types.items() if name}
    if len(named) == 1 and len(types) == 1:
        name = next(iter(named))
        yield Setting(("gpus", "type"), name, f"Gres of {named[name]} nodes")
    elif named:
        seen = ", ".join(f"{name} on {count}" for name, count in named.items())
        yield Setting(("gpus", "type"), None, f"nodes have several: {seen}", "write the one to ask for; null: any")
    kind = next(iter(named)) if len(named) == 1 else None
    yield _peak(kind)
    if kind and (known := known_gpu(kind)) and known.memory:
        yield Setting(("gpus", "memory"), known.memory, "of one, by its name", "srun --gpus=1 nvidia-smi")


def _peak(name: str | None) -> Setting:
    key = ("gpus", "flops")
    if name and (known := known_gpu(name)) and known.slices:
        return Setting(
            key, known.flops, f"{known.slices} of 7 slices (MIG) of the GPU's peak, dense bf16", "a benchmark"
        )
    if name and (known := known_gpu(name)):
        return Setting(key, known.flops, "peak of one, dense bf16, from its maker's data sheet")
    return Setting(key, "989T", "an H100's peak, dense bf16, for want of a known type", "its data sheet")


def _container(machine: Machine, asked: Asked, runs: list[Setting], here: bool) -> Iterator[Setting]:
    if not machine.runtimes:
        yield Setting(("container", "runtime"), "none", "no container runtime is on this machine's PATH")
        if asked.image_dir is not None:
            yield Setting(("container", "image_dir"), str(asked.image_dir), _SAID)
        yield from _interpreter(asked.python, mounted=False)
        return
    name, seen = machine.runtimes[0]
    others = ", ".join(other for other, _ in machine.runtimes[1:])
    also = f" ({others} too)" if others else ""
    check = f"xgen doctor --prove-runtime --runtime {name} --image IMAGE"
    yield Setting(("container", "runtime"), name, f"{seen}{also}; the nodes need it", check)
    images = machine.image_dir if here or (machine.image_dir and machine.image_dir.is_shared) else None
    if asked.image_dir is not None:
        yield Setting(("container", "image_dir"), str(asked.image_dir), _SAID)
    elif images is not None:
        yield Setting(("container", "image_dir"), str(images.path), "there are images in it")
    elif runs:
        folder = str(runs[0].value).removesuffix("/runs") + "/images"
        yield Setting(("container", "image_dir"), folder, "beside the runs; xgen image build and import fill it")
    if asked.python is not None:
        yield from _interpreter(asked.python, mounted=True)
    elif machine.environment is not None and (images or asked.image_dir):
        python = f"{machine.environment}/bin/python"
        why = "the one that runs xgen here: the images have Python and no torch"
        yield Setting(("container", "python"), python, why, "" if here else f"srun -N2 ls {python}")
        yield Setting(("container", "mounts"), [str(machine.environment)], "the environment of that Python")


def _interpreter(python: Path | None, mounted: bool) -> Iterator[Setting]:
    """`mounted`: jobs run in containers, which have the host's environments where they are mounted only."""
    if python is None:
        return
    yield Setting(("container", "python"), str(python), _SAID)
    if mounted and (environment := environment_of(python)):
        yield Setting(("container", "mounts"), [str(environment)], "the environment of that Python, on this machine")


def _network(site: Site) -> Iterator[Setting]:
    if _is_here(site):
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            yield Setting(("env", name), "lo", f"{_HERE} (NodeAddr 127.0.0.1)")


def _times(site: Site) -> Iterator[Setting]:
    seconds = site.seconds("KillWait")
    if seconds is not None:
        yield Setting(("kill_wait",), format_duration(seconds), "KillWait")


def _restart(site: Site) -> Iterator[Setting]:
    how, why = restart_by(site)
    yield Setting(("restart_by",), how, why)


def _mpi(site: Site) -> Iterator[Setting]:
    default = site.config.get("MpiDefault", "none")
    if default not in ("", "none"):
        yield Setting(("srun_args",), ["--mpi=none"], f"MpiDefault={default}; ranks meet over TCP, and need no MPI")


def _left_out(site: Site) -> Iterator[str]:
    yield "write_bandwidth: 1GB            # bytes/s that one node writes to run_root; xgen plan counts with it"
    yield "metrics: {address: 127.0.0.1}   # a network address where Prometheus is elsewhere: docs/monitoring.md"
    if not _is_here(site):
        yield "env: {NCCL_SOCKET_IFNAME: ib0}  # the nodes' interface, where NCCL picks another: srun -N1 ip -br addr"
