"""What this machine, a login node as a rule, shows of its site: file systems, container runtimes, device files."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from xgen.cluster.slurm import SchedulerError, command
from xgen.runs.users import user_name
from xgen.spec import RuntimeName

# File systems that one mounts to share them.
SHARED = re.compile(
    r"nfs4?|lustre|gpfs|beegfs\w*|wekafs|ceph|panfs|pvfs2|orangefs|glusterfs|daos|vast|cvfs|afs|juicefs|moosefs"
)
# Where sites tell their users to write.
FOLDER_VARIABLES = ("SCRATCH", "PSCRATCH", "WORK", "WORKDIR", "PROJECT", "GSCRATCH", "FASTDATA")
# Programs by runtime. First those in which all that SLURM limits and ends holds (docs/containers.md): who has one of
# them has it for jobs; docker and podman are on many machines where no job may use them.
_PROGRAMS: tuple[tuple[RuntimeName, str], ...] = (
    ("enroot", "enroot"),
    ("apptainer", "apptainer"),
    ("singularity", "singularity"),
    ("charliecloud", "ch-run"),
    ("podman", "podman"),
    ("docker", "docker"),
)
_TIMEOUT = 20  # seconds for a program of this machine
_PROBE = 5  # seconds for a file system to say what it holds

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Folder:
    """`said_by`: a variable such as $SCRATCH, or the place that holds it."""

    path: Path
    file_system: str  # its type, as the mount table names it
    said_by: str

    @property
    def is_shared(self) -> bool:
        return is_shared(self.file_system)


@dataclass(frozen=True)
class LocalGpus:
    count: int
    name: str  # e.g. NVIDIA H100 80GB HBM3
    memory: int  # MiB


@dataclass(frozen=True)
class Machine:
    host: str
    user: str
    root: Path  # of the project around the current folder
    runtimes: tuple[tuple[RuntimeName, str], ...]  # with what was seen of it, the best first
    folders: tuple[Folder, ...]  # that this user can write to, for runs, the best first
    gpu_devices: str | None  # of gres.conf, {} for the number; None: NVIDIA's own, or it cannot be read here
    gpus: LocalGpus | None  # of this machine, where it has no SLURM
    image_dir: Folder | None  # with images in it: of the project, or the one that was asked for
    environment: Path | None  # that a job must mount: the images have Python and nothing for it


@dataclass(frozen=True)
class Asked:
    """What a person said instead of it."""

    run_root: Path | None = None
    image_dir: Path | None = None
    python: Path | None = None


def is_shared(file_system: str) -> bool:
    """`fuse.ceph` is one of them too."""
    return SHARED.fullmatch(file_system.removeprefix("fuse.")) is not None


def look_around(root: Path, slurm_conf: str = "", image_dir: Path | None = None) -> Machine:
    """`root`: of the project; `slurm_conf`: SLURM's own file, beside which gres.conf lies; `image_dir`: of the images,
    where it is known."""
    images, user = image_dir or root / ".cache" / "images", user_name(os.getuid())
    there = ask_disk(lambda: any(images.iterdir()), otherwise=False)
    named = named_folders(user)  # before the table is read: a look mounts what is mounted on demand
    mounts = parse_mounts(_read(Path("/proc/mounts")))
    return Machine(
        host=socket.gethostname().partition(".")[0],
        user=user,
        root=root,
        runtimes=tuple(_runtimes()),
        folders=tuple(folders(mounts, named, user)),
        gpu_devices=gpu_devices(_read(Path(slurm_conf).with_name("gres.conf"))) if slurm_conf else None,
        gpus=None if slurm_conf else _local_gpus(),
        image_dir=Folder(images, file_system_of(mounts, real_path(images)), str(root)) if there else None,
        environment=ask_disk(lambda: _environment(images), otherwise=None) if there else None,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _runtimes() -> Iterable[tuple[RuntimeName, str]]:
    try:
        if "--container-image" in command("srun", "--help"):
            yield "pyxis", "srun --help has --container-image"
    except SchedulerError:
        pass
    for name, program in _PROGRAMS:
        if path := shutil.which(program):
            yield name, f"{path} is on this machine"


def named_folders(user: str) -> dict[str, Path]:
    """What a variable of the site names, where this user can write to it, by the variable."""
    said = {f"${name}": Path(value) for name in FOLDER_VARIABLES if (value := os.environ.get(name))}
    return {by: _own(path, user) for by, path in said.items() if _is_writable(path)}


def folders(mounts: Mapping[str, str], named: Mapping[str, Path], user: str) -> list[Folder]:
    """For runs, the best first: what is shared, and of that what the site names."""
    found = [Folder(path, file_system_of(mounts, real_path(path)), by) for by, path in named.items()]
    home = Path.home()
    real_home = Path(real_path(home))
    for place, kind in mounts.items():
        if is_shared(kind) and place != "/" and not real_home.is_relative_to(place) and not _is_home(place, real_home):
            below = [Path(place) / user, Path(place) / "users" / user]
            path = next(filter(_is_writable, below), None) or (_is_writable(Path(place)) and _own(Path(place), user))
            found += [Folder(path, kind, place)] if path else []
    if is_shared(kind := file_system_of(mounts, str(real_home))):
        found.append(Folder(home, kind, "~"))
    return sorted(found, key=lambda folder: not folder.is_shared)


def _is_home(place: str, home: Path) -> bool:
    """Whether it lies beside this user's: a site that mounts each home by itself has thousands."""
    return Path(place).parent == home.parent != Path("/")


def _own(path: Path, user: str) -> Path:
    """A folder of this user's, or the place for one in a folder of many."""
    is_own = user in path.parts or ask_disk(lambda: path.stat().st_uid == os.getuid(), otherwise=False)
    return path if is_own else path / user


def _is_writable(path: Path) -> bool:
    return path.is_absolute() and ask_disk(lambda: path.is_dir() and os.access(path, os.W_OK), otherwise=False)


def real_path(path: Path) -> str:
    return ask_disk(lambda: os.path.realpath(path), otherwise=str(path))


def ask_disk(question: Callable[[], Answer], otherwise: Answer, seconds: float = _PROBE) -> Answer:
    """`otherwise` where a file system refuses, or where its server is gone and it would wait for ever."""
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except OSError:
            answer.set_result(otherwise)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except TooLate:
        return otherwise


def parse_mounts(table: str) -> dict[str, str]:
    """Type by place, of /proc/mounts; the last one on a place hides those before it."""
    rows = (line.split() for line in table.splitlines())
    return {_unescaped(row[1]): row[2] for row in rows if len(row) >= 3}


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def file_system_of(mounts: Mapping[str, str], path: str) -> str:
    """Type of the file system that holds an absolute path; '' where the table does not say."""
    holding = [place for place in mounts if Path(path).is_relative_to(place)]
    return mounts[max(holding, key=len)] if holding else ""


def gpu_devices(gres_conf: str) -> str | None:
    """`/dev/gpu{}` where all GPUs are lines with `File=/dev/gpu[0-7]`; None for NVIDIA's own, and for several kinds."""
    seen: set[str | None] = set()
    for line in gres_conf.splitlines():
        pairs = re.findall(r"(\w+)=(\S+)", line.partition("#")[0])
        words = {key.lower(): value for key, value in pairs}
        if words.get("autodetect", "").lower() in ("nvml", "nvidia"):
            seen.add(None)
        if words.get("name") == "gpu" and (file := words.get("file")):
            found = re.fullmatch(r"(/\S*?)(\[[\d,-]+\]|\d+)", file)
            seen.add(f"{found[1]}{{}}" if found and not file.startswith("/dev/nvidia") else None)
    return seen.pop() if len(seen) == 1 else None


def parse_gpus(text: str) -> LocalGpus | None:
    """Of `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`; the first one stands for all."""
    rows = [line.rpartition(",") for line in text.splitlines() if "," in line]
    if not rows or not rows[0][2].strip().isdecimal():
        return None
    return LocalGpus(len(rows), rows[0][0].strip(), int(rows[0][2]))


def _local_gpus() -> LocalGpus | None:
    words = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        return parse_gpus(subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return None


def _environment(images: Path) -> Path | None:
    """Of the process that runs this, where the image folders have its Python and no torch."""
    if sys.prefix == sys.base_prefix:
        return None
    inside = Path(sys.base_prefix).relative_to("/")
    folders = [image for image in images.iterdir() if (image / "etc").is_dir()]
    bare = [image for image in folders if (image / inside / "bin").is_dir() and not _has_torch(image, inside)]
    return Path(sys.prefix) if bare and bare == folders else None


def environment_of(python: Path) -> Path | None:
    """The environment on this machine that holds an interpreter."""
    folder = python.parent.parent
    return folder if (folder / "pyvenv.cfg").is_file() else None


def _has_torch(image: Path, inside: Path) -> bool:
    places = (str(inside), "usr", "usr/local", "opt/*", "opt/*/*")
    return any(any(image.glob(f"{place}/lib/python3*/*-packages/torch")) for place in places)
