"""From what is known of a site and of this machine to a profile whose every value says where it is from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xgen.cluster.site.facts import Site, SitePartition
from xgen.cluster.site.known import known_gpu
from xgen.cluster.site.machine import Asked, Folder, Machine, environment_of
from xgen.cluster.site.preemption import Preemption, preemption
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
            Setting(("partitions", part.name), partition_values(site, part), partition_why(site, part))
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


def usable(site: Site) -> tuple[SitePartition, ...]:
    """Partitions in which this user may run jobs, as far as SLURM says."""
    return tuple(part for part in site.partitions if why_closed(site, part) is None)


def why_closed(site: Site, part: SitePartition) -> str | None:
    """What keeps this user's jobs out of it; None: nothing that we know of. Groups are the controller's business."""
    accounts = {one.account for one in site.associations}
    if part.root_only and site.user != "root":
        return "RootOnly=YES"
    if not part.nodes:
        return "it has no nodes"
    if accounts and part.allow_accounts is not None and not accounts & set(part.allow_accounts):
        return f"AllowAccounts={','.join(part.allow_accounts)}, and yours are {', '.join(sorted(accounts))}"
    if accounts and accounts <= set(part.deny_accounts):
        return f"DenyAccounts={','.join(part.deny_accounts)}"
    return None


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
    nodes = site.nodes_of(part.name)
    _, limit = max_time(site, part)
    parts = [f"{len(part.nodes)} nodes with {_gpus_of(Counter(n.num_gpus for n in nodes))}", limit]
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
        parts.append("SLURM's own default, without GPUs")
    return "; ".join(parts)


def _ends(site: Site, found: Preemption) -> str:
    others = "QOS" if found.by_qos else "partition"
    said = f"jobs of {others} {', '.join(found.by)} preempt its jobs (PreemptMode={found.mode}"
    if found.grace == 0:
        return f"{said}, GraceTime=0: only periodic checkpoints protect a run)"
    deaf = "preempt_send_user_signal" not in site.words("SlurmctldParameters")
    return f"{said}, GraceTime={found.grace:.0f}{', without preempt_send_user_signal: no --signal comes' * deaf})"


def max_time(site: Site, part: SitePartition) -> tuple[float | None, str]:
    """Seconds that a job there may ask for, and what says so: the partition, or a QOS or association with less."""
    said = [(part.max_time, "MaxTime")]
    qos = {one.name: one for one in site.qos}
    if part.qos in qos:
        said.append((qos[part.qos].max_wall, f"MaxWall of the partition's QOS {part.qos}"))
    for one in site.associations:
        if one.account == site.default_account and one.partition in (None, part.name):
            said.append((one.max_wall, f"MaxWall of your account {one.account}"))
            if one.default_qos in qos:
                said.append((qos[one.default_qos].max_wall, f"MaxWall of your QOS {one.default_qos}"))
    limits = [(seconds, why) for seconds, why in said if seconds is not None]
    if not limits:
        return None, "MaxTime=UNLIMITED"
    seconds, why = min(limits, key=lambda limit: limit[0])
    return seconds, f"{why}={format_duration(seconds)}"


def default_partition(site: Site) -> str | None:
    """SLURM's own, but where that has no GPUs and others have: then the one with most that nobody preempts."""
    parts = usable(site)
    gpus = {part.name: sum(node.num_gpus for node in site.nodes_of(part.name)) for part in parts}
    own = next((part.name for part in parts if part.default), None)
    if own is not None and (gpus[own] or not any(gpus.values())):
        return own
    best = sorted(parts, key=lambda part: (_ended_by(site, part) is not None, -gpus[part.name]))
    return best[0].name if best else None


def gpu_types(site: Site) -> dict[str | None, int]:
    """Nodes by the type of their GPUs, as gres.conf names it."""
    return Counter(gpus.type for node in site.nodes for gpus in node.gpus)


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
    return "requeue", "JobRequeue=1, no PreemptMode=CANCEL"


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
        accounts = ", ".join(dict.fromkeys(one.account for one in site.associations))
        yield f"Your accounts, for `project:` of a spec: {accounts}; without one: {site.default_account}"


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


def _gpus_of(by_count: Counter[int]) -> str:
    counts = sorted(count for count in by_count if count)
    return f"{'/'.join(map(str, counts))} GPUs each" if counts else "no GPUs"


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
    if name and (known := known_gpu(name)):
        return Setting(key, known.flops, "peak of one, dense bf16, from its maker's data sheet")
    return Setting(key, "989T", "an H100's peak, dense bf16, for want of a known type", "its data sheet")


def _container(machine: Machine, asked: Asked, runs: list[Setting], here: bool) -> Iterator[Setting]:
    if not machine.runtimes:
        yield Setting(("container", "runtime"), "none", "no container runtime is on this machine's PATH")
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
