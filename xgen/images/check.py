"""Start an image here and say what is in it, and what does not fit: versions, libraries, the environment it mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.images import probe
from xgen.images.commands import DOCKER_ANSWERS, Argv
from xgen.images.errors import ImageError
from xgen.images.resolve import Image
from xgen.images.tools import ToolError, answers, installed, run
from xgen.spec.container import Mount
from xgen.spec.errors import Problem, SpecError

# As pyproject.toml's [train]: a test holds them equal.
PYTHON = (3, 11)
TORCH = "2.15"
TORCHTITAN = "0.3.0"
GLIBC = (2, 28)  # torch's wheels are manylinux_2_28

CheckRuntime = Literal["charliecloud", "podman", "docker"]
RUNTIMES: tuple[CheckRuntime, ...] = get_args(CheckRuntime)
_PROGRAM: dict[CheckRuntime, str] = {"charliecloud": "ch-run", "podman": "podman", "docker": "docker"}
_ABSENT = 127
START_SECONDS = 600.0  # torch from a cold shared file system takes minutes
_LOAD_SECONDS = 3600.0


class Torch(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: str = ""
    cuda: str | None = None
    nccl: str | None = None
    gpus: int = 0


class Facts(BaseModel):
    """What the probe says."""

    model_config = ConfigDict(extra="ignore")

    python: str
    executable: str
    base_prefix: str
    glibc: str | None
    os: str | None
    uid: int
    gid: int
    compiler: str | None
    driver: str | None
    packages: dict[str, str | None]
    torch: Torch
    errors: dict[str, str]


@dataclass(frozen=True)
class Environment:
    """A Python environment of the host that jobs mount into the container."""

    folder: Path
    python: str  # version of the interpreter that it was made with


@dataclass(frozen=True)
class Row:
    """One fact. `value` is 'absent' for what is not there, `problem` says what to do where it does not fit."""

    name: str
    value: str
    problem: str = ""


def choose_runtime(wanted: str | None, of_profile: str | None) -> CheckRuntime:
    """`wanted` as it is; else the profile's, where it starts here; else one that does. Raises SpecError, ImageError."""
    if wanted is not None:
        for runtime in RUNTIMES:
            if wanted == runtime:
                if not _starts(runtime):
                    raise ImageError(f"{_how(runtime)}; {_others(runtime)}")
                return runtime
        known = ", ".join(RUNTIMES)
        message = f"{wanted!r} cannot be checked with; write one of {known}: all formats of an image hold the same"
        raise SpecError(Problem("", "--runtime", message))
    for runtime in sorted(RUNTIMES, key=lambda r: r != of_profile):
        if _starts(runtime):
            return runtime
    raise ImageError("none of charliecloud, podman and docker starts containers here; install one, or check elsewhere")


def _starts(runtime: CheckRuntime) -> bool:
    return installed(_PROGRAM[runtime]) and (runtime != "docker" or answers(DOCKER_ANSWERS))


def _how(runtime: CheckRuntime) -> str:
    if installed(_PROGRAM[runtime]):
        return f"--runtime {runtime}: its daemon does not answer; start it, or set DOCKER_HOST"
    return f"--runtime {runtime}: {_PROGRAM[runtime]} is not installed on this machine"


def _others(runtime: CheckRuntime) -> str:
    there = [f"--runtime {other}" for other in RUNTIMES if other != runtime and _starts(other)]
    return f"write {' or '.join(there)}" if there else "no other runtime starts here either"


def mounted_environment(python: str | None, mounts: Sequence[Mount]) -> Environment | None:
    """The environment of the host that holds `python`, a path in the container; None where the image has its own."""
    if python is None or "/" not in python:
        return None
    inside = Path(os.path.abspath(python)).parent.parent  # noqa: PTH100 - resolve() would leave the environment
    for mount in mounts:
        if inside.is_relative_to(mount.place):
            folder = Path(mount.source) / inside.relative_to(mount.place)
            try:
                lines = (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
            except OSError:
                return None
            pairs = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
            return Environment(folder, pairs.get("version") or pairs.get("version_info", ""))
    return None


def start_command(
    runtime: CheckRuntime, image: Image, mounts: Sequence[Mount], pythons: Sequence[str], *, gpus: bool, uid: int
) -> Argv:
    """Starts the first of `pythons` that the image has, as a job would, with a program on its stdin.

    `gpus`: there are NVIDIA's on this machine. `uid`: of the user.
    """
    find = 'for p do if command -v "$p" >/dev/null 2>&1; then exec "$p" -; fi; done; exit 127'
    work = ("/bin/sh", "-c", find, "sh", *pythons)
    if runtime == "charliecloud":
        return ("ch-run", *(f"--bind={m.source}:{m.place}" for m in mounts), "--cd=/", image.location, "--", *work)
    bound = tuple(f"--volume={m.source}:{m.place}{':ro' if m.read_only else ''}" for m in mounts)
    common = (
        "--rm", "--interactive", "--network=host", "--read-only", "--workdir=/", "--entrypoint=", "--volume=/tmp:/tmp",
        *bound,
    )  # fmt: skip
    if runtime == "docker":
        return (
            "docker", "run", *common, f"--user={uid}:{os.getgid()}", *(("--gpus=all",) if gpus else ()),
            image.digest or image.location, *work,
        )  # fmt: skip
    user = "--user=0:0" if uid == 0 else "--userns=keep-id"
    device = ("--device=nvidia.com/gpu=all",) if gpus else ()
    start = ("--rootfs", f"{image.location}:O") if image.kind == "folder" else (image.digest,)
    return ("podman", "run", *common, user, *device, *start, *work)


def look_inside(
    runtime: CheckRuntime, image: Image, mounts: Sequence[Mount], pythons: Sequence[str], timeout: float = START_SECONDS
) -> Facts:
    """Run the probe in a container. `timeout` in seconds. Raises ImageError."""
    mounts = [mount for mount in mounts if Path(mount.source).exists()]
    if image.kind == "tar" and not answers((_PROGRAM[runtime], "image", "inspect", image.digest)):
        run((_PROGRAM[runtime], "load", "--quiet", f"--input={image.location}"), timeout=_LOAD_SECONDS)
    if runtime == "charliecloud":
        _make_mount_points(Path(image.location), mounts)
    argv = start_command(runtime, image, mounts, pythons, gpus=installed("nvidia-smi"), uid=os.getuid())
    program = Path(probe.__file__).read_text(encoding="utf-8")
    try:
        done = subprocess.run(
            argv,
            input=program,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={"USER": "root", **os.environ},  # ch-run stops without it
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"{image.reference}: its Python did not answer within {timeout:.0f} s") from None
    said = next((line for line in done.stdout.splitlines() if line.startswith(probe.MARK)), None)
    if said is None:
        raise ImageError(f"{image.reference}: {_why(done.returncode, done.stderr, pythons)}")
    try:
        return Facts.model_validate_json(said.removeprefix(probe.MARK))
    except ValidationError as error:
        raise ImageError(f"{image.reference}: the probe's answer cannot be read: {error.errors()[0]}") from None


def _why(code: int, stderr: str, pythons: Sequence[str]) -> str:
    last = " | ".join(line.strip() for line in stderr.splitlines() if line.strip())[-600:]
    if code == _ABSENT and not last:
        fix = "build it with a Python"
        if any(python.startswith("/") and Path(python).exists() for python in pythons):
            fix = "an environment that is mounted needs its interpreter at the same path in the image: docker/README.md"
        return f"has no {' and no '.join(pythons)}; {fix}"
    return f"did not start ({code}): {last or 'it said nothing'}"


def _make_mount_points(root: Path, mounts: Sequence[Mount]) -> None:
    """As a job does: ch-run cannot make them in an image that it mounts read-only."""
    for mount in mounts:
        place = root / mount.place.lstrip("/")
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            continue  # a file to mount a file on
        except OSError as error:
            raise ImageError(f"{root} lacks the mount point {mount.place}: {error.strerror}") from None


def driver_cuda() -> str | None:
    """The newest CUDA that this machine's driver runs, e.g. `13.0`; None without a driver."""
    if not installed("nvidia-smi"):
        return None
    try:
        said = run(("nvidia-smi", "--version"), timeout=30)
    except ToolError:
        return None
    found = [line.partition(":")[2].strip() for line in said.splitlines() if line.upper().startswith("CUDA VERSION")]
    return found[0] if found and found[0][:1].isdigit() else None


def judge(facts: Facts, environment: Environment | None, cuda_here: str | None) -> list[Row]:
    """The facts with what does not fit. `cuda_here`: the newest CUDA that the driver of this machine runs."""
    torch = facts.torch
    return [
        Row("python", f"{facts.python} ({facts.executable})", _python_problem(facts, environment)),
        Row("os", facts.os or "unknown"),
        Row("glibc", facts.glibc or "absent", _glibc_problem(facts)),
        Row("user", f"{facts.uid}:{facts.gid}"),
        Row("compiler", facts.compiler or "absent"),
        Row("torch", torch.version or _package(facts, "torch"), _torch_problem(facts)),
        Row("torchtitan", _package(facts, "torchtitan"), _titan_problem(facts)),
        Row("CUDA", torch.cuda or "absent", _cuda_problem(torch.cuda, cuda_here)),
        Row("driver", _driver(facts, cuda_here)),
        Row("NCCL", torch.nccl or "absent", _broken(facts, "nccl", "NCCL")),
        Row("GPUs", str(torch.gpus) if torch.gpus else "absent"),
        Row("flash-attn", _package(facts, "flash-attn"), _broken(facts, "flash_attn", "flash-attn")),
        *(Row(name, _package(facts, name)) for name in ("vllm", "triton", "datasets", "tokenizers", "numpy")),
    ]


def _package(facts: Facts, name: str) -> str:
    return facts.packages.get(name) or "absent"


def _driver(facts: Facts, cuda_here: str | None) -> str:
    if facts.driver is None:
        return "absent" if cuda_here is None else f"not in the container; CUDA {cuda_here} on this machine"
    return f"{facts.driver}, up to CUDA {cuda_here}" if cuda_here else facts.driver


def _python_problem(facts: Facts, environment: Environment | None) -> str:
    version = _numbers(facts.python)[:2]
    if version < PYTHON:
        return f"xgen needs {_dotted(PYTHON)} or newer; build the image with a newer Python"
    if environment is not None and _numbers(environment.python)[:2] != version:
        wanted = _dotted(_numbers(environment.python)[:2])
        return (
            f"the environment {environment.folder} is of Python {wanted}, and its packages are not found; "
            f"build the image with Python {wanted}, or the environment with {_dotted(version)}"
        )
    return ""


def _glibc_problem(facts: Facts) -> str:
    if facts.packages.get("torch") and facts.glibc and _numbers(facts.glibc)[:2] < GLIBC:
        return f"torch needs {_dotted(GLIBC)} or newer; build on Debian 12, Ubuntu 22.04, RHEL 8 or newer"
    return ""


def _torch_problem(facts: Facts) -> str:
    installed_version = facts.packages.get("torch")
    if installed_version is None or facts.packages.get("vllm"):  # vLLM brings its own
        return _broken(facts, "torch", "torch")
    if not installed_version.startswith(f"{TORCH}."):
        return f"xgen trains with {TORCH}; build with docker/trainer's requirements.lock"
    return _broken(facts, "torch", "torch")


def _titan_problem(facts: Facts) -> str:
    if facts.packages.get("torch") is None or facts.packages.get("vllm"):
        return ""
    found = facts.packages.get("torchtitan")
    return (
        "" if found == TORCHTITAN else f"xgen trains with {TORCHTITAN}; build with docker/trainer's requirements.lock"
    )


def _cuda_problem(inside: str | None, here: str | None) -> str:
    """Within one major version an older driver runs a newer CUDA (docs.nvidia.com/deploy/cuda-compatibility)."""
    if inside is None or here is None or _numbers(here)[0] >= _numbers(inside)[0]:
        return ""
    return (
        f"this machine's driver runs CUDA up to {here}; install a newer driver, or build for CUDA {_numbers(here)[0]}"
    )


def _broken(facts: Facts, module: str, name: str) -> str:
    error = facts.errors.get(module)
    return (
        f"{name} is installed and does not load ({error}); build the image again, with libraries that fit"
        if error
        else ""
    )


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit()) or (0,)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def problems(rows: Sequence[Row]) -> Iterator[str]:
    yield from (f"{row.name} {row.value}: {row.problem}" for row in rows if row.problem)
